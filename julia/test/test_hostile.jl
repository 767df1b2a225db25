# Damaged and random streams. The loop has to return 0 or 1, or go on. It must not throw, hang, or trust a length.

using Random: MersenneTwister, shuffle!

"A valid stream of requests, damaged in one way."
function mutated(random, frames)
    stream = vcat(UInt8[], frames...)
    damage = rand(random, 1:6)
    if damage == 1
        resize!(stream, rand(random, 0:length(stream)-1))
    elseif damage == 2
        for _ in 1:rand(random, 1:8)
            stream[rand(random, 1:end)] = rand(random, UInt8)
        end
    elseif damage == 3
        splice!(stream, rand(random, 1:length(stream)), rand(random, UInt8, rand(random, 0:9)))
    elseif damage == 4
        # A wrong payload length of the first frame, in bytes 17 to 24.
        stream[17:24] = reinterpret(UInt8, [rand(random, UInt64) >> rand(random, 0:63)])
    elseif damage == 5
        stream = vcat(UInt8[], shuffle!(random, collect(frames))...)
    else
        stream = rand(random, UInt8, rand(random, 0:200))
    end
    return stream
end

@testset "for any stream, the worker answers in frames or ends" begin
    random = MersenneTwister(2026)
    frames = (load_frame(1, RESIDUAL_FILE), frame(F.PREDICT, 2, tensor_payload(numbers(5, 6, 3, 1))), frame(F.PING, 3, b"abc"))
    ends = Dict(0 => 0, 1 => 0)
    failures = 0
    for _ in 1:3000
        code, answers, _ = served(mutated(random, frames))
        ends[code] += 1
        failures += count(a -> a.kind == F.FAILURE, answers)
        all(a -> a.kind in (F.LOADED, F.PREDICTION, F.PONG, F.FAILURE), answers) || error("an answer of kind $(answers[end].kind)")
        code == 0 || answers[end].kind == F.FAILURE && startswith(text(answers[end]), "kind=protocol\nmessage=") ||
            error("the worker ended without a reason")
    end
    @test ends[0] > 500 && ends[1] > 500 && failures > ends[1]
end

@testset "a wrong payload length allocates no more memory than bytes arrive" begin
    for bytes in (2^20 + 1, 2^28, 2^30), sent in (0, 10, 2^21)
        stream = [header(F.PING, 1, bytes); zeros(UInt8, min(sent, bytes - 1))]
        pipe = F.Pipe(IOBuffer(stream), IOBuffer())
        refuse(id, e) = error("refused")
        @test_throws EOFError F.receive!(refuse, pipe)
        @test length(pipe.payload) <= max(2^20, 2 * sent)
    end
end

@testset "a payload of many chunks is received whole, and so is a short one after it" begin
    big, small = rand(UInt8, 5 * 2^20 + 7), b"abc"
    pipe = F.Pipe(IOBuffer([frame(F.PING, 1, big); frame(F.PING, 2, small); frame(F.PING, 3)]), IOBuffer())
    for (id, payload) in enumerate((big, small, UInt8[]))
        @test F.receive!(error, pipe) == (F.PING, id) && pipe.payload == payload
    end
end
