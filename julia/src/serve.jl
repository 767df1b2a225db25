# The loop of the worker: one frame at a time, in order.

"""
    serve(pipe, backend) -> exit code

Answer frames until STOP or end of file (0), or until bytes that are not the protocol (1).
"""
function serve(pipe::Pipe, backend::Backend)
    model = nothing
    try
        send(pipe, HELLO, UInt64(0), hello(backend))
        while true
            kind, id = receive!((id, e) -> send_failure(pipe, id, e), pipe)
            kind == STOP && return 0
            try
                model = answer(pipe, kind, id, model, backend)
            catch e
                pipe_failed(e) && rethrow()
                send_failure(pipe, id, e)
            end
        end
    catch e
        e isa ProtocolError && return 1
        # The other end is gone: there is nobody left to serve.
        pipe_failed(e) && return 0
        rethrow()
    end
end

"The pipe over the descriptors of the command line."
function open_pipe(options)
    shared = options.shared === nothing ? SharedMemory() : SharedMemory(fdio(options.shared, true))
    return Pipe(fdio(options.input, true), fdio(options.output, true), shared)
end

"Whether the pipe itself failed. What a model throws arrives as a `WorkerError`, so it is not mistaken for this."
pipe_failed(e) = e isa Union{EOFError,SystemError}

"The facts of HELLO."
hello(backend) = facts(
    "protocol" => PROTOCOL, "julia" => VERSION, "flux" => backend.flux, "backend" => backend.name,
    "device" => backend.device.name, "threads" => Threads.nthreads(), "pid" => getpid(), "note" => backend.note)

"Answer one request. Returns the model to go on with."
function answer(pipe, kind, id, model, backend)
    if kind == PING
        send(pipe, PONG, id, pipe.payload)
    elseif kind == LOAD
        model = build(read_graph(pipe.payload), backend)
        digest = bytes2hex(sha256(pipe.payload))
        send(pipe, LOADED, id, facts("digest" => digest, "nodes" => model.nodes))
    elseif kind == LOAD_NATIVE
        model = load_native(String(copy(pipe.payload)), backend)
        send(pipe, LOADED, id, facts("digest" => model.digest, "nodes" => 0))
    else
        model === nothing && throw(InputError("no model is loaded"))
        payload, shared = pipe.payload, pipe.shared
        GC.@preserve payload shared begin
            x = kind == PREDICT ? tensor(payload) : shared_tensor(payload, shared)
            send_tensor(pipe, PREDICTION, id, predict(model, x))
        end
    end
    return model
end

send_failure(pipe, id, e) = send(pipe, FAILURE, id, facts("kind" => kind(e), "message" => reason(e)))
