# The worker's loop on streams in memory: requests in, frames out.

header(kind, id, bytes; magic="FXDP", version=1) =
    (io = IOBuffer(); write(io, magic, UInt16(version), UInt16(kind), UInt64(id), UInt64(bytes)); take!(io))
frame(kind, id, payload=UInt8[]; options...) = [header(kind, id, length(payload); options...); payload]

const GRAPHS = mktempdir()

"The path of a graph file with these bytes."
function graph_path(bytes)
    path = joinpath(GRAPHS, string(hash(bytes)))
    write(path, bytes)
    return path
end

load_frame(id, bytes) = frame(F.LOAD, id, codeunits(graph_path(bytes)))

function tensor_payload(x)
    io = IOBuffer()
    write(io, 0x01, UInt8(ndims(x)), UInt16(0), [UInt32(n) for n in reverse(size(x))], x)
    return take!(io)
end

"Read the next frame of a stream: `(kind, id, payload)`."
function next_frame(io)
    # Not read(io, n): it calls eof after the last byte (readbytes_all! in Julia's base/iostream.jl), which blocks on a pipe.
    bytes_of(n) = read!(io, Vector{UInt8}(undef, n))
    bytes_of(4) == b"FXDP" && read(io, UInt16) == 1 || error("no frame")
    kind, id, bytes = read(io, UInt16), read(io, UInt64), read(io, UInt64)
    return (kind=kind, id=id, payload=bytes_of(Int(bytes)))
end

text(frame) = String(copy(frame.payload))
floats(frame) = reinterpret(Float32, frame.payload[5+4*frame.payload[2]:end])

"Serve the given frames. Return the exit code, the answers after HELLO, and HELLO."
function served(frames...; backend=BACKENDS[1])
    output = IOBuffer()
    code = F.serve(F.Pipe(IOBuffer(vcat(UInt8[], frames...)), output), backend)
    seekstart(output)
    answers = []
    while !eof(output)
        push!(answers, next_frame(output))
    end
    return code, answers[2:end], answers[1]
end

failure(kind, answer) = answer.kind == F.FAILURE && startswith(text(answer), "kind=$kind\nmessage=")

@testset "HELLO comes first and describes the worker" begin
    for backend in BACKENDS
        code, answers, hello = served(backend=backend)
        @test code == 0 && isempty(answers) && hello.kind == F.HELLO && hello.id == 0
        facts = Dict(split(line, '=', limit=2) for line in split(chomp(text(hello)), '\n'))
        @test facts["protocol"] == "1" && facts["julia"] == string(VERSION) && facts["backend"] == backend.name
        @test (facts["flux"] == "") == (backend.name == "plain") && facts["device"] == "cpu"
        @test facts["pid"] == string(getpid()) && facts["threads"] == string(Threads.nthreads()) && haskey(facts, "note")
    end
end

@testset "LOAD, PREDICT and PING are answered with the request's id, and STOP ends the worker" begin
    for backend in BACKENDS
        x = numbers(5, 6, 3, 2)
        code, answers, _ = served(load_frame(11, RESIDUAL_FILE), frame(F.PREDICT, 12, tensor_payload(x)),
                                  frame(F.PING, typemax(UInt64), b"abc"), frame(F.STOP, 14), frame(F.PING, 15); backend=backend)
        @test code == 0 && [a.kind for a in answers] == [F.LOADED, F.PREDICTION, F.PONG]
        @test [a.id for a in answers] == [11, 12, typemax(UInt64)]
        @test text(answers[1]) == "digest=$(bytes2hex(F.sha256(RESIDUAL_FILE)))\nnodes=9\n"
        @test answers[2].payload[1:12] == [0x01; 0x02; 0x00; 0x00; reinterpret(UInt8, UInt32[2, 3])]
        @test floats(answers[2]) ≈ vec(residual_reference(x))
        @test answers[3].payload == b"abc"
    end
end

@testset "after a failure the worker goes on with the model it had" begin
    x = tensor_payload(numbers(5, 6, 3, 1))
    unknown = graph_file((1, 2), [], ["node Foo in=x out=y name=n"])
    clash = graph_file((-1, 3), [], ["node Transpose in=x out=a name=t perm=1,0", "node Add in=a,x out=y name=/add"])
    code, answers, _ = served(
        frame(F.PREDICT, 1, x), load_frame(2, b"rubbish"), load_frame(3, unknown), load_frame(4, RESIDUAL_FILE),
        frame(F.PREDICT, 5, tensor_payload(numbers(2, 2))), frame(F.PREDICT, 6, x[1:end-1]), load_frame(7, unknown),
        frame(F.PREDICT, 8, x), load_frame(9, clash), frame(F.PREDICT, 10, tensor_payload(numbers(3, 2))), frame(F.PING, 11),
        frame(F.LOAD, 12, b"/no/such/file"), frame(F.LOAD, 13, b"with\0NUL"), frame(F.LOAD, 14, codeunits(GRAPHS)))
    @test code == 0 && [a.id for a in answers] == 1:14
    @test failure("input", answers[1]) && occursin("no model", text(answers[1]))
    @test failure("graph", answers[2])
    @test failure("operator", answers[3]) && occursin("node n (Foo)", text(answers[3]))
    @test answers[4].kind == F.LOADED
    @test failure("input", answers[5]) && failure("input", answers[6]) && failure("operator", answers[7])
    @test answers[8].kind == F.PREDICTION
    @test failure("compute", answers[10]) && occursin("node /add (Add)", text(answers[10]))
    @test answers[11].kind == F.PONG
    @test all(a -> failure("graph", a) && occursin("cannot be read", text(a)), answers[12:14])
end

@testset "bytes that break the protocol are answered with FAILURE and end the worker with 1" begin
    for (bad, word) in ((header(F.PING, 7, 0; magic="FXDQ"), "FXDP"), (header(F.PING, 7, 0; version=2), "version 2"),
                        (header(99, 7, 0), "kind 99"), (header(F.HELLO, 7, 0), "kind 1"), (header(F.PING, 7, 2^30 + 1), "payload"),
                        (header(F.PING, 7, typemax(UInt64)), "payload"))
        code, answers, _ = served(bad, frame(F.PING, 8))
        @test code == 1 && length(answers) == 1
        @test failure("protocol", answers[1]) && occursin(word, text(answers[1])) && answers[1].id == 7
    end
end

@testset "the end of the stream ends the worker with 0, in the middle of a frame too" begin
    whole = frame(F.PING, 1, b"abcdef")
    for n in (0, 1, 23, 24, 27)
        @test served(whole[1:n])[1:2] == (0, [])
    end
end

@testset "a shared tensor is read from the memory, and refused if the memory is too small" begin
    x = numbers(5, 6, 3, 2)
    head = tensor_payload(x)[1:20]
    mktemp() do path, memory
        answer_to(elements, payload) = begin
            open(file -> write(file, elements), path, "w")
            requests = [load_frame(1, RESIDUAL_FILE); frame(F.PREDICT_SHARED, 2, payload)]
            output = IOBuffer()
            @test F.serve(F.Pipe(IOBuffer(requests), output, F.SharedMemory(memory)), BACKENDS[1]) == 0
            seekstart(output)
            [next_frame(output) for _ in 1:3][3]
        end
        @test floats(answer_to(x, head)) ≈ vec(residual_reference(x))
        @test floats(answer_to([vec(x); 1.0f0], head)) ≈ vec(residual_reference(x))
        @test failure("input", answer_to(vec(x)[1:end-1], head))
        @test failure("input", answer_to(x, [head; 0x00]))
        @test failure("input", answer_to(x, head[1:end-1]))
        @test failure("input", answer_to(x, [0x01; 0x08; 0x00; 0x00; fill(0xff, 32)]))
    end
    @test failure("input", served(load_frame(1, RESIDUAL_FILE), frame(F.PREDICT_SHARED, 2, head))[2][2])
end
