# Native Flux models, which are files of Julia code. Most tests need no Flux: they use a backend that is named flux and has
# the plain layers.

using Serialization: Serialization

const STAND_IN = F.Backend("flux", F.PlainLayers, F.PlainLayers, F.CPU, "")

"Call `f(path)` with the path of a flux_model.jl that contains `code`."
function with_native(f, code)
    mktempdir() do folder
        path = joinpath(folder, "flux_model.jl")
        write(path, code)
        f(path)
    end
end

loads(code, backend=STAND_IN) = with_native(path -> F.load_native(path, backend), code)
refusal(code) = with_native(path -> replace(message(() -> F.load_native(path, STAND_IN), F.GraphError), path => "FILE"), code)

const SUMS = """
    using LinearAlgebra
    include("other.jl")
    struct Sums scale end
    (s::Sums)(x) = s.scale * [sum(x[:, :, c, n]) for c in axes(x, 3), n in axes(x, 4)]
    build_model() = Sums(parse(Float32, readline(joinpath(@__DIR__, "weights.txt"))) + norm([0.0]) + OTHER)
    """

@testset "a native model can read files and packages, and returns (labels, N)" begin
    with_native(SUMS) do path
        write(joinpath(dirname(path), "weights.txt"), "2.5\n")
        write(joinpath(dirname(path), "other.jl"), "const OTHER = 1\n")
        x = numbers(3, 4, 2, 5)
        model = F.load_native(path, STAND_IN)
        y = F.predict(model, x)
        @test y isa Matrix{Float32} && y ≈ 3.5f0 * reshape(sum(x; dims=(1, 2)), 2, 5)
        @test model.digest == bytes2hex(F.sha256(read(path)))
    end
end

@testset "each native model has a module of its own" begin
    first = loads("const N = 1; build_model() = x -> fill(N, 1, size(x, 4))")
    second = loads("const N = 2; build_model() = x -> fill(N, 1, size(x, 4))")
    x = numbers(1, 1, 1, 1)
    @test [F.predict(model, x) for model in (first, second, first)] == [fill(n, 1, 1) for n in (1.0f0, 2.0f0, 1.0f0)]
    @test !isdefined(Main, :build_model) && !isdefined(F, :build_model)
end

@testset "a native model may keep and change its input" begin
    model = loads("const KEPT = []; build_model() = x -> (push!(KEPT, x); x .+= 1; reshape(x, :, size(x, 4)))")
    x = numbers(2, 2, 1, 3)
    expected = reshape(x, 4, 3) .+ 1
    @test F.predict(model, x) ≈ expected && F.predict(model, x) ≈ expected
end

@testset "the error for a native model that cannot be loaded has one line with the place" begin
    @test refusal("build_model( = 1") |> startswith("FILE: ")
    @test refusal("\nerror(\"no weights\")") == "FILE: line 2: no weights"
    @test refusal("using NoSuchPackage") |> startswith("FILE: line 1: ArgumentError: Package NoSuchPackage not found")
    @test refusal("other() = 1") == "FILE: it does not define build_model()"
    @test refusal("build_model() = error(\"no weights\")") == "FILE: no weights"
    @test refusal("build_model() = read(\"no such file\")") |> startswith("FILE: SystemError: ")
    @test refusal("build_model() = nothing") == "FILE: build_model() returned Nothing, which cannot be called"
    @test message(() -> F.load_native("/no/such/file.jl", STAND_IN), F.GraphError) == "there is no file /no/such/file.jl"
end

@testset "a native model that fails, or returns no matrix of (labels, N), throws ComputeError" begin
    for (body, words) in (("error(\"too large\")", "FILE: too large"), ("vec(x)", "not a matrix of (labels, 2)"),
                          ("ones(3, 1)", "not a matrix of (labels, 2)"), ("sum(x)", "not a matrix of (labels, 2)"),
                          ("fill(\"a\", 1, 2)", "not a matrix of (labels, 2)"))
        with_native("build_model() = x -> $body") do path
            model = F.load_native(path, STAND_IN)
            said = message(() -> F.predict(model, numbers(1, 1, 1, 2)), F.ComputeError)
            @test occursin(words, replace(said, path => "FILE")) && occursin(path, said)
        end
    end
    @test occursin("no elements", message(() -> F.predict(loads("build_model() = identity"), numbers(1, 1, 1, 0)), F.InputError))
end

@testset "LOAD_NATIVE is answered with the file's digest; a refused one keeps the model in use" begin
    with_native("build_model() = x -> reshape(x, :, size(x, 4))") do path
        x = numbers(2, 1, 1, 2)
        code, answers, _ = served(
            frame(F.LOAD_NATIVE, 1, codeunits(path)), frame(F.PREDICT, 2, tensor_payload(x)),
            frame(F.LOAD_NATIVE, 3, codeunits(path * "x")), frame(F.PREDICT, 4, tensor_payload(x)),
            load_frame(5, RESIDUAL_FILE), frame(F.PREDICT, 6, tensor_payload(numbers(5, 6, 3, 1))); backend=STAND_IN)
        @test code == 0 && [a.id for a in answers] == 1:6
        @test text(answers[1]) == "digest=$(bytes2hex(F.sha256(read(path))))\nnodes=0\n"
        @test floats(answers[2]) == floats(answers[4]) == vec(x)
        @test failure("graph", answers[3]) && answers[5].kind == F.LOADED && answers[6].kind == F.PREDICTION
    end
end

@testset "plain layers refuse a native model, and say why Flux is not used" begin
    with_native("error(\"this is not to be evaluated\")") do path
        code, answers, _ = served(frame(F.LOAD_NATIVE, 1, codeunits(path)), frame(F.PING, 2))
        @test code == 0 && failure("graph", answers[1]) && answers[2].kind == F.PONG
        @test occursin("$path needs Flux, which this worker does not have: the plain layers were asked for", text(answers[1]))
    end
end

if FOUND.flux !== nothing
    @testset "Flux runs a native model in test mode, with weights from its folder" begin
        code = """
            using Flux, Serialization
            function build_model()
                model = Chain(Conv((3, 3), 1 => 2, relu), Flux.flatten, Dropout(0.5), Dense(2 * 2 * 3 => 4), BatchNorm(4), softmax)
                Flux.loadmodel!(model, deserialize(joinpath(@__DIR__, "weights.bin")))
                Flux.trainmode!(model)
            end
            """
        L = FOUND.flux
        original = L.Chain(L.Conv((3, 3), 1 => 2, L.relu), L.flatten, L.Dropout(0.5), L.Dense(2 * 2 * 3 => 4), L.BatchNorm(4), L.softmax)
        with_native(code) do path
            open(io -> Serialization.serialize(io, L.state(original)), joinpath(dirname(path), "weights.bin"), "w")
            x = numbers(4, 5, 1, 3)
            y = F.predict(F.load_native(path, FOUND), x)
            @test y ≈ L.testmode!(original)(x) && y ≈ F.predict(F.load_native(path, FOUND), x)
            @test vec(sum(y; dims=1)) ≈ ones(Float32, 3)
        end
    end

    @testset "a native model that uses its layers as fast cannot know keeps Flux's" begin
        code = """
            using Flux
            struct Reader{C} conv::C end
            (r::Reader)(x) = reshape(sum(r.conv(x); dims=(1, 2)), 2, :) .* size(r.conv.weight, 3)
            build_model() = Reader(Conv(fill(0.5f0, 3, 3, 4, 2), Float32[1, 2]))
            """
        with_native(code) do path
            x = numbers(5, 5, 4, 2)
            model = F.load_native(path, FOUND)
            first, second = F.predict(model, x), F.predict(model, x)
            @test first ≈ second ≈ Base.invokelatest(model.model, x) && model.quick === nothing
        end
    end

    @testset "a native model of layers that are known runs by fluxdrop's after its first answer" begin
        with_native("using Flux; build_model() = Chain(Conv((3, 3), 4 => 2, relu), GlobalMeanPool(), Flux.flatten)") do path
            x = numbers(5, 5, 4, 2)
            model = F.load_native(path, FOUND)
            first = F.predict(model, x)
            @test model.agrees && F.predict(model, x) ≈ first
        end
    end
end
