node(operator, rest="") = "node $operator in=x out=y name=n $rest" |> rstrip

@testset "activations are applied to each number" begin
    x = 3 .* numbers(5, 4, 3)
    @test agrees(run_node(node("Relu"), x), max.(x, 0))
    @test agrees(run_node(node("Sigmoid"), x), 1 ./ (1 .+ exp.(-x)))
    @test agrees(run_node(node("Tanh"), x), tanh.(x))
    @test agrees(run_node(node("LeakyRelu", "alpha=0.2"), x), ifelse.(x .> 0, x, 0.2f0 .* x))
    @test agrees(run_node(node("Elu", "alpha=1.5"), x), ifelse.(x .> 0, x, 1.5f0 .* (exp.(x) .- 1)))
    @test agrees(run_node("node Clip in=x,lo,hi out=y name=n", x, "lo" => fill(-0.5f0), "hi" => fill(1f0)), clamp.(x, -0.5f0, 1f0))
    @test agrees(run_node("node Clip in=x,-,hi out=y name=n", x, "hi" => fill(1f0)), min.(x, 1f0))
end

@testset "arithmetic broadcasts as NumPy does, with a constant on either side" begin
    x = numbers(4, 3, 2) .+ 2
    for (name, f) in ("Add" => +, "Sub" => -, "Mul" => *, "Div" => /)
        for c in (numbers(4) .+ 3, numbers(4, 1) .+ 3, numbers(1, 3) .+ 3, numbers(4, 3, 2) .+ 3, fill(2f0), numbers(4, 3, 2, 2) .+ 3)
            @test agrees(run_node("node $name in=x,c out=y name=n", x, "c" => c), broadcast(f, x, c))
            @test agrees(run_node("node $name in=c,x out=y name=n", x, "c" => c), broadcast(f, c, x))
        end
        @test agrees(run_node("node $name in=x,x out=y name=n", x), broadcast(f, x, x))
    end
end

@testset "Softmax and LogSoftmax run along ONNX's axis" begin
    x = 5 .* numbers(4, 3, 2)
    for (axis, dims) in ((-1, 1), (2, 1), (1, 2), (0, 3), (-3, 3))
        p = exp.(x) ./ sum(exp.(x), dims=dims)
        @test agrees(run_node(node("Softmax", "axis=$axis"), x), p)
        @test agrees(run_node(node("LogSoftmax", "axis=$axis"), x), log.(p); atol=1f-4)
    end
    @test agrees(run_node(node("Softmax", "axis=0"), Float32[1000, 1000]), Float32[0.5, 0.5])
end

@testset "Gemm with constant weights applies its transpositions and factors" begin
    x = numbers(4, 3)  # (M, K) = (3, 4) in ONNX
    line(inputs, α, β, a, b) = "node Gemm in=$inputs out=y name=n alpha=$α beta=$β transA=$a transB=$b"
    w, wt = numbers(5, 4), numbers(4, 5)
    for c in (numbers(5), numbers(5, 1), fill(2f0), numbers(1), numbers(5, 3), numbers(1, 3))
        @test agrees(run_node(line("x,w,c", 1.0, 1.0, 0, 0), x, "w" => w, "c" => c), w * x .+ c)
        @test agrees(run_node(line("x,w,c", 2.0, 0.5, 0, 1), x, "w" => wt, "c" => c), 2 .* (wt' * x) .+ c ./ 2)
    end
    @test agrees(run_node(line("x,w", 1.0, 1.0, 0, 0), x, "w" => w), w * x)
    @test agrees(run_node(line("x,w,-", 1.0, 1.0, 1, 0), x, "w" => numbers(5, 3)), numbers(5, 3) * permutedims(x))
    @test agrees(run_node(line("w,x", 1.0, 1.0, 0, 0), x, "w" => numbers(3, 2)), x * numbers(3, 2))
    @test agrees(run_node(line("x,x", 1.0, 1.0, 0, 1), x), permutedims(x) * x)
end

@testset "MatMul with a constant second input is a matrix product for any batch" begin
    x, w = numbers(4, 3), numbers(5, 4)
    @test agrees(run_node("node MatMul in=x,w out=y name=n", x, "w" => w), w * x)
    @test agrees(run_node("node MatMul in=w,x out=y name=n", x, "w" => numbers(3, 2)), x * numbers(3, 2))
    batch = numbers(4, 3, 2)
    @test agrees(run_node("node MatMul in=x,w out=y name=n", batch, "w" => w), reshape(w * reshape(batch, 4, 6), 5, 3, 2))
end

@testset "Flatten, Reshape, Transpose and Concat treat tensors as row-major" begin
    x = numbers(5, 4, 3, 2)
    for (axis, shape) in ((0, (120, 1)), (1, (60, 2)), (2, (20, 6)), (4, (1, 120)), (-1, (5, 24)))
        @test agrees(run_node(node("Flatten", "axis=$axis"), x), reshape(x, shape))
    end
    for (wanted, shape) in (([2, 60], (60, 2)), ([0, -1], (60, 2)), ([-1], (120,)), ([0, 3, 2, -1], (10, 2, 3, 2)))
        @test agrees(run_node("node Reshape in=x,s out=y name=n allowzero=0", x, "s" => Int64.(wanted)), reshape(x, shape))
    end
    @test agrees(run_node(node("Transpose", "perm=0,2,3,1"), x), permutedims(x, (3, 1, 2, 4)))
    @test agrees(run_node(node("Transpose", "perm=3,0,1,2"), x), permutedims(x, (2, 3, 4, 1)))
    c = numbers(5, 4, 2, 2)
    @test agrees(run_node("node Concat in=x,c,x out=y name=n axis=1", x, "c" => c), cat(x, c, x, dims=3))
    @test agrees(run_node("node Concat in=x,x out=y name=n axis=-1", x), cat(x, x, dims=1))
end

@testset "computed weights give the result of constant ones" begin
    x, w = numbers(4, 3, 2, 1), numbers(4, 3, 2, 1) .+ 1
    @test agrees(run_node(conv_line("x,x"), x), fill(sum(abs2, x), 1, 1, 1, 1))
    @test agrees(run_node(conv_line("w,x"), x, "w" => w), fill(sum(w .* x), 1, 1, 1, 1))
    @test occursin("node n (Conv)", message(() -> run_node(conv_line("w,x"), x, "w" => numbers(2, 2, 2, 1)), F.ComputeError))
end

@testset "a node that cannot be built is refused with its name, its operator and the reason" begin
    x = numbers(4, 4, 2, 1)
    refusal(line, constants...) = message(() -> run_node(line, x, constants...), F.OperatorError)
    pool = "kernel_shape=2,2 strides=1,1 pads=0,0,0,0 dilations=1,1 storage_order=0"
    @test refusal("node Foo in=x out=y name=/a/b") == "node /a/b (Foo): the worker has no operator Foo"
    @test refusal(node("MaxPool", pool)) == "node n (MaxPool): the attribute 'ceil_mode' is missing"
    @test occursin("'axis' is missing", refusal(node("Softmax")))
    @test occursin("'axis' has the value 'z'", refusal(node("Softmax", "axis=z")))
    @test occursin("none of its inputs is computed", refusal("node Relu in=w out=y name=n", "w" => numbers(3)))
    @test occursin("do not fit", refusal(conv_line("x,w"; strides=(1,)), "w" => numbers(3, 3, 2, 2)))
    @test occursin("'strides' has the values", refusal(conv_line("x,w"; strides=(0, 1)), "w" => numbers(3, 3, 2, 2)))
    @test occursin("'pads' has the values", refusal(conv_line("x,w"; pads=(-1, 0, 0, 0)), "w" => numbers(3, 3, 2, 2)))
    @test occursin("groups", lowercase(refusal(conv_line("x,w"; group=2), "w" => numbers(3, 3, 1, 3))))
    @test occursin("permutation", refusal(node("Transpose", "perm=0,0,1,2")))
    @test occursin("int64", lowercase(refusal("node Reshape in=x,s out=y name=n allowzero=0", "s" => numbers(2))))
end
