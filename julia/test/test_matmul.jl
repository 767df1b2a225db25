"NumPy's matmul of tensors of two or more dimensions, in Julia's order, as plain loops."
function matmul_reference(a, b)
    batch = Base.Broadcast.broadcast_shape(size(a)[3:end], size(b)[3:end])
    y = zeros(Float32, size(b, 1), size(a, 2), batch...)
    at(x, k) = ntuple(d -> d + 2 > ndims(x) || size(x, d + 2) == 1 ? 1 : k[d], max(ndims(x) - 2, 0))
    for k in CartesianIndices(batch), j in 1:size(a, 2), i in 1:size(b, 1)
        y[i, j, Tuple(k)...] = sum(Float64(a[l, j, at(a, Tuple(k))...]) * b[i, l, at(b, Tuple(k))...] for l in 1:size(a, 1))
    end
    return y
end

@testset "MatMul broadcasts batch dimensions, with either side computed" begin
    for (a_batch, b_batch) in (((), ()), ((6,), (6,)), ((6,), ()), ((), (6,)), ((6, 2), (6, 2)), ((6, 2), (1, 2)), ((1, 2), (6, 1)), ((6, 2), (6,)), ((1,), (6, 2)))
        a, b = numbers(4, 3, a_batch...), numbers(5, 4, b_batch...)
        expected = matmul_reference(a, b)
        @test agrees(run_node("node MatMul in=x,c out=y name=n", a, "c" => b), expected)
        @test agrees(run_node("node MatMul in=c,x out=y name=n", b, "c" => a), expected)
    end
    x = numbers(4, 4, 3)
    @test agrees(run_node("node MatMul in=x,x out=y name=n", x), matmul_reference(x, x))
end

@testset "MatMul with a vector has no axis for it in the result" begin
    a, b, v = numbers(4, 3, 2), numbers(5, 4, 2), numbers(4)
    @test agrees(run_node("node MatMul in=x,v out=y name=n", a, "v" => v), reshape(matmul_reference(a, reshape(v, 1, 4)), 3, 2))
    @test agrees(run_node("node MatMul in=v,x out=y name=n", b, "v" => v), reshape(matmul_reference(reshape(v, 4, 1), b), 5, 2))
    @test agrees(run_node("node MatMul in=x,x out=y name=n", v), fill(sum(abs2, v)))
end

@testset "MatMul applies a fused activation" begin
    a, b = numbers(4, 3, 2), numbers(5, 4, 2)
    lines = ["node MatMul in=x,c out=p name=m", "node Relu in=p out=y name=r"]
    for backend in BACKENDS
        model = F.build!(F.read_graph(graph_file((2, 3, 4), ["c" => b], lines)), backend)
        @test length(model.steps[1].layers) == 1 && agrees([F.predict(model, a)], max.(matmul_reference(a, b), 0))
    end
end

@testset "matrices of sizes that do not fit are an error with the node's name" begin
    wrong(a, b) = message(() -> run_node("node MatMul in=x,c out=y name=n", a, "c" => b), F.ComputeError)
    @test startswith(wrong(numbers(4, 3, 2), numbers(5, 3, 2)), "node n (MatMul): DimensionMismatch")
    @test startswith(wrong(numbers(4, 3, 2), numbers(5, 4, 3)), "node n (MatMul): DimensionMismatch")
end

@testset "Einsum sums over the labels that its result does not have" begin
    a, b = numbers(4, 3, 2), numbers(5, 4, 2)
    einsum(equation, x, constants...; inputs="x") = run_node("node Einsum in=$inputs out=y name=n equation=$(replace(equation, ',' => "%2C"))", x, constants...)
    pair(equation, x, c) = einsum(equation, x, "c" => c; inputs="x,c")
    @test agrees(einsum("ijk->kji", a), permutedims(a, (3, 2, 1)))
    @test agrees(einsum("ijk->j", a), reshape(sum(a, dims=(1, 3)), 3))
    @test agrees(einsum("ijk->", a), fill(sum(a)))
    @test agrees(einsum("ba", numbers(4, 3)), permutedims(numbers(4, 3)))
    square = numbers(3, 3, 2)
    @test agrees(einsum("...ii->...i", square), [square[i, i, k] for i in 1:3, k in 1:2])
    @test agrees(einsum("bii", square), [sum(square[i, i, k] for i in 1:3) for k in 1:2])
    @test agrees(pair("bij,bjk->bik", a, b), matmul_reference(a, b))
    @test agrees(pair("...ij,...jk->...ik", a, numbers(5, 4, 1)), matmul_reference(a, numbers(5, 4, 1)))
    @test agrees(pair("bhwc,hkc->bhwk", numbers(3, 4, 2, 2), numbers(3, 5, 2)),
                 [sum(numbers(3, 4, 2, 2)[c, w, h, n] * numbers(3, 5, 2)[c, k, h] for c in 1:3) for k in 1:5, w in 1:4, h in 1:2, n in 1:2])
    @test agrees(pair("i,j->ij", numbers(3), numbers(4)), numbers(4) * numbers(3)')
    @test agrees(einsum("ij,ij,i->j", numbers(4, 3), "c" => numbers(4, 3), "v" => numbers(3); inputs="x,c,v"),
                 [sum(numbers(4, 3)[j, i]^2 * numbers(3)[i] for i in 1:3) for j in 1:4])
    @test occursin("malformed", message(() -> einsum("i-j->k", a), F.OperatorError))
    @test occursin("do not fit", message(() -> einsum("ij->ji", a), F.ComputeError))
end

@testset "Gemm of two computed matrices transposes, scales and adds" begin
    x, c = numbers(3, 3), numbers(3)
    line(α, β, a, b) = "node Gemm in=x,x,c out=y name=n alpha=$α beta=$β transA=$a transB=$b"
    for a in (0, 1), b in (0, 1)
        product = (b == 1 ? permutedims(x) : x) * (a == 1 ? permutedims(x) : x)
        @test agrees(run_node(line(0.5, 2.0, a, b), x, "c" => c), 0.5f0 .* product .+ 2 .* c)
    end
end

@testset "a Dense that is divided among threads by rows or by columns is a product, a sum and its activation" begin
    P = F.PlainLayers
    @test P.WARMED_UP[]
    for (width, out, columns) in ((300, 130, 40), (300, 130, 1), (300, 17, 1000), (64, 64, 700), (1, 5000, 3), (70000, 3, 2), (0, 5, 4), (6, 5, 0))
        weight, bias, x = numbers(out, width), numbers(out), numbers(width, columns)
        expected = max.(Float64.(weight) * x .+ bias, 0)
        @test P.Dense(weight, bias, P.relu)(x) ≈ expected rtol = 1e-4
        @test P.Dense(weight, false)(x) ≈ Float64.(weight) * x rtol = 1e-4
    end
end

@testset "Softmax along any axis of a tensor that several threads share adds up to one" begin
    x = numbers(40, 50, 60)
    for axis in 0:2
        y = run_node("node Softmax in=x out=y name=n axis=$axis coerce=0", x)[1]
        d = 3 - axis
        expected = exp.(x .- maximum(x; dims=d))
        @test y ≈ expected ./ sum(expected; dims=d)
    end
end

@testset "Concat, Transpose and Where of tensors that several threads share keep every number" begin
    x, z = numbers(30, 40, 50), numbers(30, 7, 50)
    @test run_node("node Concat in=x,c out=y name=n axis=1", x, "c" => z)[1] == cat(x, z; dims=2)
    @test run_node("node Transpose in=x out=y name=n perm=2,0,1", x)[1] == permutedims(x, (2, 3, 1))
end
