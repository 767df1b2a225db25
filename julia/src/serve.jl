# The worker's loop: it answers one request at a time, in order.

"""
    serve(pipe, backend; compiled="") -> exit code

Send HELLO, then answer requests until STOP or end of file (0), or until bytes that break the protocol (1). A request
that fails is answered with FAILURE, and the model in use stays. Does not return for another error: it is thrown.
`compiled` is the folder of [`load_compiled_model`](@ref), or empty.
"""
function serve(pipe::Pipe, backend::Backend; compiled="")
    model = nothing
    try
        send(pipe, HELLO, UInt64(0), hello(backend))
        while true
            kind, id = receive!((id, e) -> send_failure(pipe, id, e), pipe)
            kind == STOP && return 0
            try
                model = answer(pipe, kind, id, model, backend, compiled)
            catch e
                pipe_failed(e) && rethrow()
                send_failure(pipe, id, e)
            end
        end
    catch e
        e isa ProtocolError && return 1
        # The other end of the pipe is closed, so nobody waits for an answer.
        pipe_failed(e) && return 0
        rethrow()
    end
end

"The [`Pipe`](@ref) on the descriptors of [`worker_options`](@ref)."
function open_pipe(options)
    shared = options.shared === nothing ? SharedMemory() : SharedMemory(fdio(options.shared, true))
    return Pipe(fdio(options.input, true), fdio(options.output, true), shared)
end

"Whether an error is one of the pipe. A model's errors are `WorkerError`s, so they are never mistaken for one."
pipe_failed(e) = e isa Union{EOFError,SystemError}

"The payload of HELLO."
hello(backend) = facts(
    "protocol" => PROTOCOL, "julia" => VERSION, "flux" => flux_version(backend), "backend" => backend.name,
    "device" => backend.device.name, "threads" => Threads.nthreads(), "pid" => getpid(), "note" => backend.note)

"""
    answer(pipe, kind, id, model, backend, compiled) -> model

Answer the request whose payload is in `pipe`. Return the model to use from now on. Throws any [`WorkerError`](@ref).
"""
function answer(pipe, kind, id, model, backend, compiled)
    if kind == PING
        send(pipe, PONG, id, pipe.payload)
    elseif kind == LOAD
        path = String(copy(pipe.payload))
        digest = graph_digest(path)
        is_compiled = backend.layers === PlainLayers && load_compiled_model(compiled, digest)
        # Native code that was just loaded is newer than this function, here and below.
        model = Base.invokelatest(build!, read_graph(path), backend)
        send(pipe, LOADED, id, facts("digest" => digest, "nodes" => model.nodes, (is_compiled ? ("compiled" => true,) : ())...))
    elseif kind == LOAD_NATIVE
        model = load_native(String(copy(pipe.payload)), backend)
        send(pipe, LOADED, id, facts("digest" => model.digest, "nodes" => 0))
    else
        model === nothing && throw(InputError("no model is loaded"))
        payload, shared = pipe.payload, pipe.shared
        GC.@preserve payload shared begin
            x = kind == PREDICT ? tensor(payload) : shared_tensor(payload, shared)
            send_tensor(pipe, PREDICTION, id, Base.invokelatest(predict, model, x))
        end
    end
    return model
end

send_failure(pipe, id, e) = send(pipe, FAILURE, id, facts("kind" => kind(e), "message" => reason(e)))
