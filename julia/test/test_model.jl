using Random: MersenneTwister

# A residual block, y = relu(x + conv(relu(conv(x)))), and a head that returns probabilities.
const RESIDUAL = [
    conv_line("x,w1,b1"; pads=(1, 1, 1, 1)) |> line -> replace(line, "out=y name=n" => "out=a name=/one"),
    "node Relu in=a out=b name=/relu",
    "node Identity in=b out=b2 name=/same",
    conv_line("b2,w2"; pads=(1, 1, 1, 1)) |> line -> replace(line, "out=y name=n" => "out=c name=/two"),
    "node Add in=c,x out=d name=/add",
    "node Relu in=d out=e name=/relu2",
    "node GlobalAveragePool in=e out=f name=/gap",
    "node Flatten in=f out=g name=/flat axis=1",
    "node Softmax in=g out=y name=/softmax axis=-1",
]
const RESIDUAL_CONSTANTS = ["w1" => numbers(3, 3, 3, 4), "b1" => numbers(4), "w2" => numbers(3, 3, 4, 3)]
const RESIDUAL_FILE = graph_file((-1, 3, 6, 5), RESIDUAL_CONSTANTS, RESIDUAL)

function residual_reference(x)
    w1, b1, w2 = last.(RESIDUAL_CONSTANTS)
    a = conv_reference(x, w1, b1; pads=(1, 1, 1, 1))
    c = conv_reference(max.(a, 0), w2, zeros(3); pads=(1, 1, 1, 1))
    p = exp.(reshape(sum(max.(c .+ x, 0), dims=(1, 2)) ./ 30, 3, :))
    return p ./ sum(p, dims=1)
end

@testset "a graph with a branch is computed, for any batch size" begin
    for backend in BACKENDS, batch in (1, 2, 5)
        x = numbers(5, 6, 3, batch)
        @test agrees([F.predict(F.build!(F.read_graph(RESIDUAL_FILE), backend), x)], residual_reference(x))
    end
end

@testset "the result for a picture does not depend on its batch" begin
    for backend in BACKENDS
        model = F.build!(F.read_graph(RESIDUAL_FILE), backend)
        x = numbers(5, 6, 3, 4)
        together = F.predict(model, x)
        @test all(i -> F.predict(model, x[:, :, :, i:i]) ≈ together[:, i:i], 1:4)
    end
end

@testset "a result does not change during later predictions, also with other batch sizes" begin
    lines = ["node Neg in=x out=a name=a", "node Flatten in=a out=b name=b axis=1", "node Abs in=a out=c name=c",
             "node Add in=c,a out=d name=d", "node Flatten in=d out=e name=e axis=1", "node Mul in=b,e out=f name=f",
             "node Sub in=f,b out=g name=g", "node Exp in=g out=y name=y"]
    value(v) = exp((abs(v) - v) * -v + v)
    for backend in BACKENDS
        model = F.build!(F.read_graph(graph_file((-1, 3, 2, 2), [], lines)), backend)
        inputs = [numbers(2, 2, 3, batch) .* i for (i, batch) in enumerate((2, 2, 1, 3, 3, 2))]
        answers = [F.predict(model, x) for x in inputs]
        @test answers ≈ [reshape(value.(x), 12, :) for x in inputs]
    end
end

@testset "consecutive layers become one chain, and an activation is fused into the layer before it" begin
    model = F.build!(F.read_graph(RESIDUAL_FILE), BACKENDS[1])
    @test model.nodes == 9
    @test [length(step.layers) for step in model.steps] == [2, 4]
    @test model.steps[1].layers[1].σ === F.PlainLayers.relu
    @test occursin("Conv((3, 3), 3 => 4, relu, pad=1)", sprint(show, model))
end

@testset "a layer's output that an activation and another node read is not replaced by the activation's" begin
    x = numbers(4, 4, 2, 1)
    lines = [replace(conv_line("x,w"), "out=y" => "out=a"), "node Relu in=a out=b name=r", "node Add in=a,b out=y name=s"]
    conv = conv_reference(x, numbers(1, 1, 2, 2), zeros(2))
    for backend in BACKENDS
        model = F.build!(F.read_graph(graph_file((1, 2, 4, 4), ["w" => numbers(1, 1, 2, 2)], lines)), backend)
        @test agrees([F.predict(model, x)], conv .+ max.(conv, 0))
    end
end

@testset "a graph may return its input" begin
    for backend in BACKENDS
        model = F.build!(F.read_graph(graph_file((-1, 2), [], ["node Identity in=x out=y name=n"])), backend)
        @test F.predict(model, Float32[1 2; 3 4]) == Float32[1 2; 3 4]
    end
end

@testset "a tensor of a shape that the model does not take throws InputError" begin
    model = F.build!(F.read_graph(RESIDUAL_FILE), BACKENDS[1])
    wrong(dims...) = message(() -> F.predict(model, zeros(Float32, dims...)), F.InputError)
    @test occursin("-1×3×6×5", wrong(5, 6, 1, 1)) && occursin("1×1×6×5", wrong(5, 6, 1, 1))
    @test occursin("not 3×6×5", wrong(5, 6, 3))
    @test occursin("no elements", wrong(5, 6, 3, 0))
end

@testset "the error of a layer has its node's name" begin
    for backend in BACKENDS
        lines = ["node Relu in=x out=a name=/ok", "node Transpose in=a out=b name=/t perm=1,0",
                 "node Add in=b,x out=y name=/bad"]
        model = F.build!(F.read_graph(graph_file((-1, 3), [], lines)), backend)
        @test startswith(message(() -> F.predict(model, numbers(3, 2)), F.ComputeError), "node /bad (Add): DimensionMismatch")
    end
end

@testset "a second output is refused only if it is read" begin
    relu, x = "node Relu in=x out=y,z name=r", numbers(4, 4)
    @test agrees(run_node(relu, x), max.(x, 0))
    graph = F.read_graph(graph_file((4, 4), [], [relu, "node Abs in=z out=w name=a"], "w"))
    @test message(() -> F.build!(graph, BACKENDS[1]), F.OperatorError) ==
          "node r (Relu): output 2 is read, and the worker computes only the first"
end

@testset "a node may have several outputs, each of them read once, several times or never" begin
    x = numbers(9, 2)
    parts = [x[1:2, :], x[3:5, :], x[6:9, :]]
    split = "node Split in=r,s out=a,b,c name=s axis=1"
    for backend in BACKENDS, (lines, expected) in (
        ([split, "node Concat in=c,a out=y name=j axis=1"], cat(parts[3], parts[1], dims=1)),
        ([split, "node Add in=a,a out=y name=d"], 2 .* parts[1]),
        ([split, "node Neg in=b out=y name=d"], .-parts[2]),
        ([replace(split, "c name" => "y name")], parts[3]),
        ([replace(split, "a,b,c" => "-,y,-")], parts[2]),
        ([split, "node Abs in=c out=p name=p", "node Concat in=p,b,c out=y name=j axis=1"], cat(abs.(parts[3]), parts[2], parts[3], dims=1)))
        model = F.build!(F.read_graph(graph_file((2, 9), ["s" => Int64[2, 3, 4]], ["node Neg in=x out=q name=q", "node Neg in=q out=r name=r", lines...])), backend)
        @test F.predict(model, x) == expected
        @test occursin("Split", sprint(show, model))
    end
end

@testset "nodes that the output does not depend on are not built" begin
    lines = ["node Foo in=x out=a name=f", "node Relu in=a out=b name=r", "node Abs in=x out=y name=a"]
    @test agrees([F.predict(F.build!(F.read_graph(graph_file((2,), [], lines)), BACKENDS[1]), Float32[-1, 2])], Float32[1, 2])
end

@testset "a graph for an empty tensor takes one" begin
    x = zeros(Float32, 4, 0, 2)
    @test all(==(zeros(Float32, 4, 1, 2)), run_node("node ReduceSum in=x,a out=y name=n keepdims=1 noop_with_empty_axes=0", x, "a" => Int64[1]))
end

@testset "the hundredth prediction allocates no more than the second" begin
    model, x = F.build!(F.read_graph(RESIDUAL_FILE), BACKENDS[1]), numbers(5, 6, 3, 2)
    F.predict(model, x)
    bytes = [@allocated(F.predict(model, x)) for i in 1:100]
    @test bytes[100] <= bytes[2] + 1024
end

"A graph file of random nodes that keep the number of elements, and the function that it is."
function random_graph(rng, nodes)
    lines, values, shapes = String[], Function[identity], Any[(4, 6, 5)]
    constants = ["flat" => Int64[120], "wide" => Int64[6, 20], "deep" => Int64[4, 6, 5]]
    sizes = Dict("flat" => (120,), "wide" => (20, 6), "deep" => (5, 6, 4))
    name(i) = i == 1 ? "x" : "v$i"
    for i in 2:nodes+1
        # Mostly the last value, so that there are chains, and any other, so that values are read late and twice.
        from = rand(rng) < 0.5 ? i - 1 : rand(rng, 1:i-1)
        f, kind = values[from], rand(rng, 1:4)
        if kind == 1
            push!(lines, "node Relu in=$(name(from)) out=v$i name=n$i")
            push!(values, x -> max.(f(x), 0)); push!(shapes, shapes[from])
        elseif kind == 2
            to = rand(rng, ["flat", "wide", "deep"])
            push!(lines, "node Reshape in=$(name(from)),$to out=v$i name=n$i allowzero=0")
            push!(values, x -> reshape(f(x), sizes[to])); push!(shapes, reverse(sizes[to]))
        elseif kind == 3
            order = reverse(0:length(shapes[from])-1)
            push!(lines, "node Transpose in=$(name(from)) out=v$i name=n$i perm=$(join(order, ','))")
            push!(values, x -> (y = f(x); permutedims(reshape(y, size(y)..., 1), (ndims(y):-1:1..., ndims(y) + 1)) |> z -> reshape(z, size(z)[1:end-1])))
            push!(shapes, reverse(shapes[from]))
        else
            other = rand(rng, [j for j in 1:i-1 if shapes[j] == shapes[from]])
            g = values[other]
            push!(lines, "node Sub in=$(name(from)),$(name(other)) out=v$i name=n$i")
            push!(values, x -> f(x) .- 0.5f0 .* 2 .* g(x)); push!(shapes, shapes[from])
        end
    end
    output = nodes + 1
    return graph_file((4, 6, 5), constants, lines, name(output)), values[output]
end

@testset "arrays that are used again hold no number that is still read, whatever reshapes and reads them" begin
    rng = MersenneTwister(1)
    for _ in 1:150
        file, f = random_graph(rng, rand(rng, 5:25))
        for backend in BACKENDS
            model = F.build!(F.read_graph(file), backend)
            for _ in 1:3
                x = randn(rng, Float32, 5, 6, 4)
                @test F.predict(model, copy(x)) ≈ f(x)
            end
        end
    end
end

@testset "constants are taken out of the graph when the last layer that reads them is built" begin
    lines = ["node MatMul in=x,w out=a name=a", "node Add in=a,c out=b name=b", "node Gemm in=b,w out=y name=y alpha=1.0 beta=1.0 transA=0 transB=1"]
    for backend in BACKENDS
        w, c, x = numbers(3, 3), numbers(3), numbers(3, 2)
        graph = F.read_graph(graph_file((2, 3), ["w" => w, "c" => c], lines))
        @test F.predict(F.build!(graph, backend), x) ≈ permutedims(w) * (w * x .+ c)
        @test isempty(graph.constants)
    end
end

"The graph of `lines` with constants, built by each backend, and computed for `x`."
answers(x, constants, lines) = [F.predict(F.build!(F.read_graph(graph_file(reverse(size(x)), constants, lines)), backend), x)
                                for backend in BACKENDS]

@testset "a pointwise convolution reads what a concatenation and a batch norm join and scale for it" begin
    γ, β, μ, v = numbers(9), numbers(9) .+ 1, numbers(9) ./ 2, abs.(numbers(9)) .+ 0.1f0
    w, b = numbers(1, 1, 9, 21), numbers(21)
    constants = ["k" => numbers(1, 1, 4, 5), "g" => γ, "b" => β, "m" => μ, "v" => v, "w" => w, "c" => b]
    lines = [replace(conv_line("x,k"), "out=y name=n" => "out=s name=s"), "node Concat in=s,x out=p name=p axis=1",
             "node BatchNormalization in=p,g,b,m,v out=q name=q epsilon=0.001 training_mode=0", "node Relu in=q out=r name=r",
             conv_line("r,w,c")]
    for size in ((5, 6), (40, 41)), batch in (1, 3)
        x = numbers(size..., 4, batch)
        joined = cat(conv_reference(x, constants[1][2], zeros(5)), x; dims=3)
        channels(p) = reshape(p, 1, 1, :)
        normal = max.(channels(γ) .* (joined .- channels(μ)) ./ sqrt.(channels(v) .+ 0.001f0) .+ channels(β), 0)
        @test agrees(answers(x, constants, lines), conv_reference(normal, w, b))
    end
    model = F.build!(F.read_graph(graph_file((-1, 4, 5, 6), constants, lines)), BACKENDS[1])
    @test [length(step.layers) for step in model.steps] == [1, 1]
    @test length(model.steps[2].layers[1].layers) == 3
end

@testset "what does not fit a pointwise convolution that reads a concatenation or a product is computed first" begin
    x, w = numbers(4, 3, 2, 2), numbers(1, 1, 2, 3)
    for axis in (0, 2, 3)
        lines = ["node Neg in=x out=a name=a", "node Concat in=x,a out=p name=p axis=$axis",
                 "node BatchNormalization in=p,o,z,z,o out=q name=q epsilon=0.0 training_mode=0", conv_line("q,w")]
        @test agrees(answers(x, ["o" => ones(Float32, 2), "z" => zeros(Float32, 2), "w" => w], lines),
                     conv_reference(cat(x, -x; dims=4 - axis), w, zeros(3)))
    end
    for sizes in ((1, 1, 2, 2), (1, 1, 2, 1), (4, 3, 2, 2), (4, 1, 1, 2), (1, 1, 1, 2)), order in ("x,f", "f,x")
        lines = ["node Slice in=x,s,e out=f name=f", "node Mul in=$order out=p name=p", conv_line("p,w")]
        constants = ["s" => zeros(Int64, 4), "e" => Int64[reverse(sizes)...], "w" => w]
        @test agrees(answers(x, constants, lines), conv_reference(x .* x[map(n -> 1:n, sizes)...], w, zeros(3)))
    end
end
