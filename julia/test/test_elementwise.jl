"Whether the node, with one input and no constants, applies `f` to each number."
elementwise(line, x, f; atol=1f-6) = agrees(run_node(node(line...), x), Float32.(f.(Float64.(x))); atol=atol)

"The error function as its series, in Float64."
function erf_reference(x)
    term = total = x
    for n in 1:200
        term *= -x^2 / n
        total += term / (2n + 1)
    end
    return 2 / sqrt(pi) * total
end

@testset "activations follow their definitions over their whole range" begin
    x = collect(reshape(range(-6f0, 6f0, length=240), 12, 20))
    σ(v) = 1 / (1 + exp(-v))
    @test elementwise(("Sigmoid",), x, σ)
    @test elementwise(("Tanh",), x, tanh)
    @test elementwise(("Softplus",), x, v -> log1p(exp(v)))
    @test elementwise(("Softsign",), x, v -> v / (1 + abs(v)))
    @test elementwise(("Mish",), x, v -> v * tanh(log1p(exp(v))))
    @test elementwise(("HardSwish",), x, v -> v * clamp(v / 6 + 0.5, 0, 1))
    @test elementwise(("HardSigmoid", "alpha=0.3 beta=0.6"), x, v -> clamp(0.3 * v + 0.6, 0, 1))
    @test elementwise(("Elu", "alpha=1.5"), x, v -> v > 0 ? v : 1.5 * (exp(v) - 1))
    @test elementwise(("Celu", "alpha=2.0"), x, v -> max(0, v) + min(0, 2 * (exp(v / 2) - 1)))
    @test elementwise(("Selu", "alpha=2.0 gamma=3.0"), x, v -> v > 0 ? 3 * v : 3 * 2 * (exp(v) - 1))
    @test elementwise(("ThresholdedRelu", "alpha=0.5"), x, v -> v > 0.5 ? v : 0.0)
    @test elementwise(("Swish", "alpha=1.5"), x, v -> v * σ(1.5 * v))
    @test elementwise(("Swish", "alpha=1.0"), x, v -> v * σ(v))
    @test elementwise(("Erf",), x ./ 2, erf_reference)
    @test elementwise(("Gelu", "approximate=none"), x ./ 2, v -> v / 2 * (1 + erf_reference(v / sqrt(2))))
    @test elementwise(("Gelu", "approximate=tanh"), x, v -> v / 2 * (1 + tanh(sqrt(2 / pi) * (v + 0.044715 * v^3))))
end

@testset "swish is as exact as a Float32 over its whole range" begin
    for x in -100f0:0.0137f0:100f0
        @test abs(F.PlainLayers.swish(x) - x / (1 + exp(-Float64(x)))) <= 1.2e-7 * max(1, abs(x))
    end
    @test all(isapprox.(F.PlainLayers.swish.(Float32[-Inf, -1f38, -1000, 0, 1000, 1f38, Inf]), Float32[0, 0, 0, 0, 1000, 1f38, Inf]; atol=1f-35))
    @test all(isnan, F.PlainLayers.swish.(reinterpret.(Float32, UInt32[0x7fc00000, 0x7fc00001, 0xffffffff])))
end

@testset "activations of huge, infinite and NaN numbers are their limits" begin
    x = Float32[-Inf, -1f30, -200, -90, 0, 90, 200, 1f30, Inf, NaN]
    ends(line, low, high) = all(y -> y[1:3] == fill(low, 3) && y[7:9] == high && isnan(y[10]), run_node(node(line...), x))
    @test ends(("Sigmoid",), 0, [1, 1, 1])
    @test ends(("Tanh",), -1, [1, 1, 1])
    @test ends(("Erf",), -1, [1, 1, 1])
    @test ends(("Softplus",), 0, [200f0, 1f30, Inf32])
    @test ends(("Elu", "alpha=1.0"), -1, [200f0, 1f30, Inf32])
end

@testset "fast_exp has a relative error below 2.5e-7, and is 0 or Inf where Float32 has no normal number" begin
    x = vcat(range(-87f0, 88f0, length=10001), numbers(1000) ./ 100)
    @test maximum(abs.(F.PlainLayers.fast_exp.(x) ./ exp.(Float64.(x)) .- 1)) < 2.5f-7
    @test F.PlainLayers.fast_exp.(Float32[88.8, 89, 1000, Inf]) == fill(Inf32, 4)
    @test F.PlainLayers.fast_exp.(Float32[-88, -100, -1000, -Inf]) == zeros(Float32, 4)
    @test isnan(F.PlainLayers.fast_exp(NaN32))
end

"The bits of numbers, of which 0 and -0 differ."
bits(y) = reinterpret(UInt32, vec(y))

@testset "FakeQuantize gives what the nodes do that it replaces, to the bit but for -0, alone and within a convolution" begin
    x = 5 .* numbers(30, 20, 2, 3)
    x[1:12] = Float32[-Inf, -1f30, -2, -0.05, -0.02, -0.0, 0, 0.05, 0.15, 2, 1f30, Inf]
    weights = numbers(3, 3, 2, 4)
    number(v) = fill(Float32(v))
    conv = "node Conv in=x,w out=c name=c group=1 pads=1,1,1,1 dilations=1,1 strides=1,1"
    for zero in (0, 3), low in (0, -128), before in (String[], [conv])
        v = isempty(before) ? "x" : "c"
        constants = ["w" => weights, "s" => number(0.1), "z" => number(zero), "l" => number(low), "h" => number(low + 255)]
        steps = zero == 0 ?
            ["node Div in=$v,s out=d name=d", "node Round in=d out=r name=r", "node Clip in=r,l,h out=p name=p", "node Mul in=p,s out=y name=y"] :
            ["node Div in=$v,s out=d name=d", "node Round in=d out=r name=r", "node Add in=r,z out=a name=a",
             "node Clip in=a,l,h out=p name=p", "node Sub in=p,z out=u name=u", "node Mul in=u,s out=y name=y"]
        fused = ["node FakeQuantize in=$v,s,$(zero == 0 ? "-" : "z"),l,h out=y name=y"]
        for backend in BACKENDS
            apart, together = map((steps, fused)) do nodes
                F.predict(F.build!(F.read_graph(graph_file(reverse(size(x)), constants, [before; nodes])), backend), x)
            end
            @test bits(apart .+ 0.0f0) == bits(together)
        end
    end
    many = ("s" => Float32[1, 2], "l" => number(0), "h" => number(9))
    refused = message(() -> run_node("node FakeQuantize in=x,s,-,l,h out=y name=n", x, many...), F.OperatorError)
    @test occursin("constants have to be numbers", refused)
end

@testset "FakeQuantize without a division gives what a division does, to the bit, around each number where it rounds to another step" begin
    O = F.OnnxLayers
    edges(x) = [prevfloat(x, 2), prevfloat(x), x, nextfloat(x), nextfloat(x, 2)]
    for scale in (abs.(numbers(40)) .+ 1f-3..., 0.1f0, 0.5f0, 3f0, 1f-12, 2.5f15), low in (-128f0, 0f0, -255f0, -7f0, 5f0)
        high = low + 255
        q = O.fake_quantize(scale, low, high)
        @test q isa (F.PlainLayers.PROCESSOR[] isa F.PlainLayers.Processor{4,6} ? O.FakeQuantize : O.QuickFakeQuantize)
        x = Float32[-Inf, -1f30, -0.0, 0, 1f30, Inf]
        for step in low-2:high+2
            append!(x, [edges(step * scale); edges((step + 0.5f0) * scale)])
        end
        @test bits(q.(x)) == bits(clamp.(round.(x ./ scale), low, high) .* scale .+ 0f0)
        @test q.(q.(x)) == q.(x)
        @test isnan(q(NaN32))
    end
    @test O.fake_quantize(2f0, -128f0, 127f0).(Float32[1, 3, 5, -1, -3, 300, -300]) == Float32[0, 4, 4, 0, -4, 254, -256]
    words = O.fake_quantize(0.0123f0, -32768f0, 32767f0)
    x = 200 .* numbers(1000)
    @test words.(x) == clamp.(round.(x ./ 0.0123f0), -32768, 32767) .* 0.0123f0
end

@testset "FakeQuantize divides by scales whose inverse is no normal number, and where there are more steps than 16 bits have" begin
    O = F.OnnxLayers
    for (scale, low, high) in ((1f-42, -128f0, 127f0), (1f38, -128f0, 127f0), (-0.5f0, 0f0, 255f0), (0.5f0, -2f0^31, 2f0^31), (0.5f0, 3f0, 3f0))
        q = O.fake_quantize(scale, low, high)
        @test q isa O.FakeQuantize
        x = scale .* numbers(100) .* 300
        @test q.(x) == clamp.(round.(x ./ scale), low, high) .* scale
    end
end

@testset "an activation is applied to each number of a run of any length once, and to no other" begin
    for n in (0:70..., 127, 128, 129), offset in (0, 3)
        x = numbers(offset + n + 40)
        y = copy(x)
        F.PlainLayers.activate!(y, v -> v + 1, offset, n)
        @test y == [offset < i <= offset + n ? x[i] + 1 : x[i] for i in 1:length(x)]
    end
end

@testset "functions of one number give Julia's results" begin
    x = 3 .* numbers(5, 4)
    for (name, f) in ("Abs" => abs, "Neg" => -, "Reciprocal" => inv, "Exp" => exp, "Floor" => floor, "Ceil" => ceil, "Sign" => sign,
                      "Sin" => sin, "Cos" => cos, "Tan" => tan, "Atan" => atan, "Sinh" => sinh, "Cosh" => cosh, "Asinh" => asinh)
        @test elementwise((name,), x, f; atol=1f-5)
    end
    for (name, f) in ("Sqrt" => sqrt, "Log" => log, "Asin" => asin, "Acos" => acos, "Atanh" => atanh)
        @test elementwise((name,), abs.(x) ./ 4, f)
    end
    @test elementwise(("Acosh",), 1 .+ abs.(x), acosh)
    @test all(==([-2, -2, 0, 0, 2, 2]), run_node(node("Round"), Float32[-2.5, -1.5, -0.5, 0.5, 1.5, 2.4]))
end

@testset "large arrays are computed correctly in several chunks" begin
    x = numbers(64, 64, 81, 1)
    @test agrees(run_node(node("Neg"), x), .-x)
    for b in (numbers(64, 64, 81, 1), numbers(1, 1, 81, 1), numbers(64, 1, 81, 1), numbers(1, 64, 1, 1))
        @test agrees(run_node("node Mul in=x,b out=y name=n", x, "b" => b), x .* b)
        @test agrees(run_node("node Sub in=b,x out=y name=n", x, "b" => b), b .- x)
    end
    mean = "node ReduceMean in=x,axes out=y name=n keepdims=1 noop_with_empty_axes=0"
    @test agrees(run_node(mean, x, "axes" => Int64[2, 3]), sum(x; dims=(1, 2)) ./ 4096)
end

@testset "functions return NaN outside their domain" begin
    for (name, outside) in ("Sqrt" => -1, "Log" => -1, "Asin" => 2, "Acos" => -2, "Atanh" => 2, "Acosh" => 0.5, "Sin" => Inf)
        @test all(y -> all(isnan, y), run_node(node(name), Float32[outside, NaN]))
    end
    @test all(==([-Inf32]), run_node(node("Log"), Float32[0]))
    @test all(y -> isnan(y[1]) && y[2] == -8, run_node("node Pow in=x,p out=y name=n", Float32[-2, -2], "p" => Float32[0.5, 3]))
end

@testset "operators of two tensors broadcast, with either one computed" begin
    x, c = numbers(4, 3, 2) .+ 2, numbers(4, 1) .+ 3
    for (name, f) in ("Pow" => ^, "Greater" => >, "Less" => <, "GreaterOrEqual" => >=, "LessOrEqual" => <=, "Equal" => ==,
                      "PRelu" => (a, b) -> a < 0 ? a * b : a)
        @test agrees(run_node("node $name in=x,c out=y name=n", x, "c" => c), broadcast(f, x, c))
        @test agrees(run_node("node $name in=c,x out=y name=n", x, "c" => c), broadcast(f, c, x))
    end
    @test agrees(run_node("node PRelu in=x,c out=y name=n", .-x, "c" => c), .-x .* c)
    for exponent in (2f0, 3f0, 0.5f0, -1.5f0)
        @test agrees(run_node("node Pow in=x,c out=y name=n", x, "c" => fill(exponent)), x .^ exponent)
    end
    @test agrees(run_node("node Pow in=x,c out=y name=n", x, "c" => fill(Int64(3))), x .^ 3)
    a, b = Float32[-7, 7, -7, 7], Float32[3, 3, -3, -3]
    @test all(==([2, 1, -1, -2]), run_node("node Mod in=x,b out=y name=n fmod=0", a, "b" => b))
    @test all(==([-1, 1, -1, 1]), run_node("node Mod in=x,b out=y name=n fmod=1", a, "b" => b))
end

@testset "broadcasting supports every combination of sizes" begin
    for sizes in Iterators.product(((5, 1, 4, 1), (1, 3, 4, 2), (5, 3, 1, 2), (1, 1, 1, 1), (5, 3, 4, 2)), ((5, 3, 4, 2), (1, 3, 1, 1), (5,), (5, 1, 1, 2), ()))
        a, b = numbers(sizes[1]...), numbers(sizes[2]...)
        line(inputs) = "node Sub in=$inputs out=y name=n"
        expected = a .- b
        @test agrees(run_node(line("x,b"), a, "b" => b), expected)
    end
    @test occursin(r"(cannot|could not) be broadcast", message(() -> run_node("node Add in=x,b out=y name=n", numbers(3, 2), "b" => numbers(2)), F.ComputeError))
end

@testset "operators of several tensors use all of them" begin
    x, a, b = numbers(4, 3), 2 .* numbers(4), numbers(1, 3) .+ 0.5f0
    for (name, f) in ("Min" => (v...) -> min.(v...), "Max" => (v...) -> max.(v...), "Sum" => (v...) -> .+(v...), "Mean" => (v...) -> .+(v...) ./ length(v))
        @test agrees(run_node("node $name in=a,x,b out=y name=n", x, "a" => a, "b" => b), f(a, x, b))
        @test agrees(run_node("node $name in=x out=y name=n", x), x)
    end
    where = "node Where in=c,x,a out=y name=n"
    c = Int64[1 0 1; 0 1 1; 0 0 0; 1 1 1]
    @test agrees(run_node(where, x, "c" => c, "a" => a), ifelse.(c .!= 0, x, a))
end

@testset "Clip accepts bounds that are absent, crossed or computed" begin
    x = numbers(5, 4)
    @test agrees(run_node("node Clip in=x,lo,hi out=y name=n", x, "lo" => fill(0.5f0), "hi" => fill(-0.5f0)), fill(-0.5f0, 5, 4))
    @test agrees(run_node("node Clip in=x out=y name=n", x), x)
    @test agrees(run_node("node Clip in=c,x,- out=y name=n", Float32[0.25], "c" => x), max.(x, 0.25f0))
    @test agrees(run_node("node Clip in=c,-,x out=y name=n", Float32[0.25], "c" => x), min.(x, 0.25f0))
end

@testset "logic operators, Where and Cast treat zero as false and all else as true" begin
    x = Float32[-1.7, 0, 0.4, 2.6]
    lines(nodes...) = [F.predict(F.build!(F.read_graph(graph_file((4,), ["t" => Int64[1, 1, 0, 0], "three" => fill(Int64(3)), "half" => fill(0.5f0)], collect(nodes))), b), x) for b in BACKENDS]
    above = "node Greater in=x,half out=a name=a"
    @test all(==([0, 0, 0, 1]), lines(above, "node Not in=a out=b name=b", "node Not in=b out=y name=n"))
    for (name, f) in ("And" => &, "Or" => |, "Xor" => ⊻)
        @test all(==(f.([0, 0, 0, 1], [1, 1, 0, 0])), lines(above, "node $name in=a,t out=y name=n"))
    end
    @test all(==([-1, 0, 0, 2]), lines("node Cast in=x out=y name=n to=7"))
    @test all(==([255, 0, 0, 2]), lines("node Cast in=x out=y name=n to=2"))
    @test all(==([1, 0, 1, 1]), lines("node Cast in=x out=y name=n to=9"))
    @test all(==(x), lines("node Cast in=x out=y name=n to=1"))
    @test all(==([0, 0, 0, 1]), lines(above, "node Cast in=a out=b name=b to=6", "node Mul in=b,b out=y name=n"))
    @test all(==([-1, 0, 0, 2]), lines("node Cast in=x out=i name=i to=7", "node Mul in=i,three out=a name=a", "node Div in=a,three out=y name=n"))
end

@testset "an activation with parameters is fused into the layer before it" begin
    x = numbers(4, 4, 2, 1)
    conv = replace(conv_line("x,w"), "out=y name=n" => "out=a name=c")
    w = numbers(1, 1, 2, 2)
    made = conv_reference(x, w, zeros(2))
    for (line, f) in ("Clip in=a,lo,hi out=y name=n" => v -> clamp(v, -0.1f0, 0.2f0), "LeakyRelu in=a out=y name=n alpha=0.1" => v -> v < 0 ? v / 10 : v,
                      "HardSwish in=a out=y name=n" => v -> v * clamp(v / 6 + 0.5f0, 0, 1))
        for backend in BACKENDS
            model = F.build!(F.read_graph(graph_file((1, 2, 4, 4), ["w" => w, "lo" => fill(-0.1f0), "hi" => fill(0.2f0)], [conv, "node $line"])), backend)
            @test length(model.steps) == 1 && length(model.steps[1].layers) == 1
            @test agrees([F.predict(model, x)], f.(made))
        end
    end
end
