const REDUCTIONS = [
    "ReduceSum" => sum, "ReduceMean" => v -> sum(v) / length(v), "ReduceMax" => maximum, "ReduceMin" => minimum,
    "ReduceProd" => prod, "ReduceL1" => v -> sum(abs, v), "ReduceL2" => v -> sqrt(sum(abs2, v)), "ReduceSumSquare" => v -> sum(abs2, v),
    "ReduceLogSum" => v -> log(sum(v)), "ReduceLogSumExp" => v -> log(sum(exp, v))]

"`f` of the numbers of `x` along the dimensions `dims`, which have size 1 in the result."
function reduction_reference(f, x, dims)
    y = zeros(Float32, ntuple(d -> d in dims ? 1 : size(x, d), ndims(x)))
    for at in CartesianIndices(y)
        y[at] = f(Float64[x[i] for i in CartesianIndices(x) if all(d -> d in dims || i[d] == at[d], 1:ndims(x))])
    end
    return y
end

@testset "reductions support any axes, kept or dropped" begin
    x = numbers(5, 4, 3, 2) .+ 1.5f0
    for (name, f) in REDUCTIONS, (axes, dims) in (([3], (1,)), ([-1], (1,)), ([1], (3,)), ([2, 3], (1, 2)), ([0, -2], (4, 2)), ([0, 1, 2, 3], (1, 2, 3, 4)))
        expected = reduction_reference(f, x, dims)
        line(keep) = "node $name in=x,axes out=y name=n keepdims=$keep noop_with_empty_axes=0"
        @test agrees(run_node(line(1), x, "axes" => Int64.(axes)), expected; atol=1f-4)
        @test agrees(run_node(line(0), x, "axes" => Int64.(axes)), dropdims(expected, dims=dims); atol=1f-4)
    end
end

@testset "without axes a reduction covers all, or none with noop_with_empty_axes" begin
    x = numbers(4, 3) .+ 1.5f0
    for (name, f) in REDUCTIONS
        line(inputs, noop) = "node $name in=$inputs out=y name=n keepdims=1 noop_with_empty_axes=$noop"
        whole, each = reduction_reference(f, x, (1, 2)), reduction_reference(f, x, ())
        @test agrees(run_node(line("x", 0), x), whole; atol=1f-4)
        @test agrees(run_node(line("x,-", 0), x), whole; atol=1f-4)
        @test agrees(run_node(line("x,none", 0), x, "none" => Int64[]), whole; atol=1f-4)
        @test agrees(run_node(line("x,none", 1), x, "none" => Int64[]), each)
    end
end

@testset "the reduction of no numbers is the neutral element" begin
    x = zeros(Float32, 4, 0, 2)
    for (name, value) in ("ReduceSum" => 0, "ReduceProd" => 1, "ReduceMax" => -Inf, "ReduceMin" => Inf, "ReduceL1" => 0, "ReduceL2" => 0,
                          "ReduceSumSquare" => 0, "ReduceLogSum" => -Inf, "ReduceLogSumExp" => -Inf)
        line = "node $name in=x,axes out=y name=n keepdims=1 noop_with_empty_axes=0"
        @test all(==(fill(Float32(value), 4, 1, 2)), run_node(line, x, "axes" => Int64[1]))
    end
end

@testset "ReduceLogSumExp does not overflow" begin
    line = "node ReduceLogSumExp in=x out=y name=n keepdims=0 noop_with_empty_axes=0"
    @test agrees(run_node(line, Float32[1000, 1000]), fill(1000 + log(2f0)))
end

@testset "ArgMax and ArgMin return the index of the first or the last of equal numbers" begin
    x = Float32[2 1 5; 7 1 5; 7 3 2; 0 3 5]
    line(name, axis, keep, last) = node(name, "axis=$axis keepdims=$keep select_last_index=$last")
    for (arguments, expected) in (("ArgMax", 1, 0, 0) => [1, 2, 0], ("ArgMax", -1, 0, 1) => [2, 3, 3],
                                  ("ArgMax", 0, 1, 0) => reshape([2, 0, 0, 2], 4, 1), ("ArgMin", 1, 1, 0) => [3 0 2],
                                  ("ArgMin", 1, 0, 1) => [3, 1, 2])
        @test all(==(expected), run_node(line(arguments...), x))
    end
end

@testset "before opset 13, Softmax and LogSoftmax cover all axes from one on" begin
    x = 5 .* numbers(4, 3, 2)
    whole = reshape(x, 12, 2)
    p = reshape(exp.(whole) ./ sum(exp.(whole), dims=1), 4, 3, 2)
    @test agrees(run_node(node("Softmax", "axis=1 coerce=1"), x), p)
    @test agrees(run_node(node("LogSoftmax", "axis=1 coerce=1"), x), log.(p); atol=1f-4)
    @test agrees(run_node(node("Softmax", "axis=0 coerce=1"), x), exp.(x) ./ sum(exp.(x)))
end

@testset "Hardmax marks the first of the largest numbers" begin
    x = Float32[1 3; 3 0; 3 3]
    @test all(==(Float32[0 1; 1 0; 0 0]), run_node(node("Hardmax", "axis=-1 coerce=0"), x))
    @test all(==(Float32[0 1; 1 0; 1 0]), run_node(node("Hardmax", "axis=0 coerce=0"), x))
    @test all(==(Float32[0 0; 1 0; 0 0]), run_node(node("Hardmax", "axis=0 coerce=1"), x))
end
