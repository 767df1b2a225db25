"The result of every backend for `x` and a graph with several lines, of which one computes `y`."
run_lines(lines, x, constants...; shape=reverse(size(x))) =
    [F.predict(F.build!(F.read_graph(graph_file(shape, constants, lines)), backend), x) for backend in BACKENDS]

"An array whose elements are their own linear indices."
places(dims...) = reshape(collect(Float32, 1:prod(dims)), dims...)

@testset "Transpose permutes any number of axes" begin
    for (dims, perm) in (((5, 4), (1, 0)), ((5, 4, 3), (2, 0, 1)), ((5, 4, 3), (1, 0, 2)), ((19, 18, 3, 2), (0, 2, 3, 1)),
                         ((19, 18, 3, 2), (0, 3, 1, 2)), ((4, 3, 2, 1, 2), (4, 2, 0, 1, 3)), ((40, 37), (1, 0)), ((5,), (0,)))
        x = places(dims...)
        expected = permutedims(x, [length(perm) - p for p in reverse(perm)])
        @test agrees(run_node(node("Transpose", "perm=$(join(perm, ','))"), x), expected)
    end
end

@testset "Reshape keeps sizes at 0, infers -1, and takes 0 as a size with allowzero" begin
    x = places(4, 3, 2)
    reshaped(shape, zeros=0) = run_node("node Reshape in=x,s out=y name=n allowzero=$zeros", x, "s" => Int64.(shape))
    @test agrees(reshaped([0, -1]), reshape(x, 12, 2))
    @test agrees(reshaped([-1, 0, 1, 4]), reshape(x, 4, 1, 3, 2))
    empty = zeros(Float32, 4, 0, 3)
    @test size(run_node("node Reshape in=x,s out=y name=n allowzero=1", empty, "s" => Int64[3, 4, 0])[1]) == (0, 4, 3)
    @test occursin("cannot become", message(() -> reshaped([5, -1]), F.ComputeError))
end

@testset "Squeeze and Unsqueeze remove and add axes of size 1, in any order" begin
    x = places(1, 4, 1, 3)
    squeezed(axes) = run_node("node Squeeze in=x,a out=y name=n", x, "a" => Int64.(axes))
    @test agrees(squeezed([1]), reshape(x, 1, 4, 3)) && agrees(squeezed([-1, 1]), reshape(x, 4, 3))
    @test agrees(run_node(node("Squeeze"), x), reshape(x, 4, 3))
    @test occursin("to squeeze", message(() -> squeezed([0]), F.ComputeError))
    flat = places(4, 3)
    unsqueezed(axes) = run_node("node Unsqueeze in=x,a out=y name=n", flat, "a" => Int64.(axes))
    @test agrees(unsqueezed([0]), reshape(flat, 4, 3, 1)) && agrees(unsqueezed([-1]), reshape(flat, 1, 4, 3))
    @test agrees(unsqueezed([4, 2, 0]), reshape(flat, 1, 4, 1, 3, 1)) && agrees(unsqueezed([-2, 0]), reshape(flat, 4, 1, 3, 1))
    @test occursin("twice", message(() -> unsqueezed([1, -3]), F.ComputeError))
end

@testset "Concat joins any number of tensors along any axis" begin
    x = places(4, 3, 2)
    for (axis, d) in ((0, 3), (1, 2), (2, 1), (-1, 1))
        c = -places(ntuple(k -> k == d ? 5 : size(x, k), 3)...)
        @test agrees(run_node("node Concat in=c,x,x,c out=y name=n axis=$axis", x, "c" => c), cat(c, x, x, c, dims=d))
    end
    @test occursin(r"cannot be joined|mismatch in dimension", message(() -> run_node("node Concat in=c,x out=y name=n axis=0", x, "c" => places(4, 2, 1)), F.ComputeError))
end

@testset "Split cuts into given, equal or nearly equal pieces" begin
    x = places(3, 10, 2)
    for (i, columns) in enumerate((1:2, 3:3, 4:10))
        outputs = join([k == i ? "y" : "o$k" for k in 1:3], ',')
        @test agrees(run_node("node Split in=x,s out=$outputs name=n axis=1", x, "s" => Int64[2, 1, 7]), x[:, columns, :])
    end
    for (i, columns) in enumerate((1:4, 5:8, 9:10))
        outputs = join([k == i ? "y" : "o$k" for k in 1:3], ',')
        @test agrees(run_node("node Split in=x out=$outputs name=n axis=-2 num_outputs=3", x), x[:, columns, :])
    end
    @test agrees(run_node("node Split in=x out=o,y name=n axis=0", x), x[:, :, 2:2])
    @test occursin("cannot be split", message(() -> run_node("node Split in=x,s out=y,z name=n axis=1", x, "s" => Int64[2, 1]), F.ComputeError))
end

@testset "Slice clamps, counts from the end and steps backwards, as Python's slices do" begin
    x = places(10, 4)
    last, first = typemax(Int64), typemin(Int64)
    for (start, stop, step, columns) in ((1, 5, 1, 2:5), (-3, last, 1, 8:10), (0, -1, 3, 1:3:9), (-100, 100, 4, 1:4:9), (20, 30, 1, 1:0), (5, 2, 1, 1:0),
                                         (last, first, -1, 10:-1:1), (-1, -5, -2, 10:-2:8), (3, first, -1, 4:-1:1), (2, 7, -1, 1:0), (20, 3, -3, 10:-3:5))
        sliced = run_node("node Slice in=x,b,e,a,s out=y name=n", x, "b" => [start], "e" => [stop], "a" => Int64[1], "s" => Int64[step])
        @test agrees(sliced, x[columns, :])
    end
    @test agrees(run_node("node Slice in=x,b,e out=y name=n", x, "b" => Int64[1, 2], "e" => Int64[3, 9]), x[3:9, 2:3])
    @test agrees(run_node("node Slice in=x,b,e,a,s out=y name=n", x, "b" => Int64[-1, 1], "e" => Int64[-4, 8], "a" => Int64[-2, -1], "s" => Int64[-2, 3]),
                 x[2:3:8, 4:-2:2])
end

@testset "Gather takes indices of any rank, also negative ones" begin
    x = places(4, 3, 2)
    gathered(axis, i) = run_node("node Gather in=x,i out=y name=n axis=$axis", x, "i" => i)
    @test agrees(gathered(0, fill(Int64(1))), x[:, :, 2]) && agrees(gathered(1, Int64[2, 0, -1]), x[:, [3, 1, 3], :])
    @test agrees(gathered(-1, Int64[0 1; -1 2]), reshape(x[[1, 4, 2, 3], :, :], 2, 2, 3, 2))
    @test agrees(run_lines(["node Cast in=x out=i name=c to=7", "node Gather in=t,i out=y name=n axis=0"], Float32[2, 0], "t" => places(3, 4)),
                 places(3, 4)[:, [3, 1]])
    @test message(() -> gathered(0, Int64[2]), F.ComputeError) != "no error"
end

@testset "GatherND takes index tuples, also negative ones, after any number of batch axes" begin
    x = places(2, 3, 4)
    gathered(indices, batch) = run_node("node GatherND in=x,i out=y name=n batch_dims=$batch", x, "i" => Int64.(indices))
    @test agrees(gathered([[3, -1] [0, 1]], 0), [x[:, 3, 4] x[:, 2, 1]])
    @test agrees(gathered(reshape([1, 2, 0], 3, 1, 1), 0), fill(x[1, 3, 2], 1, 1))
    @test agrees(gathered(reshape([2, 0, -1, 1], 1, 4), 1), hcat(x[:, 3, 1], x[:, 1, 2], x[:, 3, 3], x[:, 2, 4]))
    for (indices, batch) in ((reshape([4], 1, 1), 0), (zeros(4, 1), 0), (zeros(1, 3), 1))
        @test occursin("node n (GatherND)", message(() -> gathered(indices, batch), F.ComputeError))
    end
end

@testset "Expand and Tile repeat" begin
    x = places(4, 1, 2)
    expanded(shape) = run_node("node Expand in=x,s out=y name=n", x, "s" => Int64.(shape))
    @test agrees(expanded([3, 1]), repeat(x, 1, 3, 1)) && agrees(expanded([2, 1, 1, 1]), repeat(x, 1, 1, 1, 2))
    @test agrees(expanded([4]), x) && agrees(expanded([1, 2, 3, 4]), reshape(repeat(x, 1, 3, 1), 4, 3, 2, 1))
    @test agrees(run_node("node Tile in=x,r out=y name=n", x, "r" => Int64[3, 1, 2]), repeat(x, 2, 1, 3))
end

@testset "Shape, and what is computed from it, depends on the batch" begin
    for batch in (1, 3)
        x = places(4, 3, batch)
        free = (-1, 3, 4)
        @test agrees(run_lines(["node Shape in=x out=y name=n start=0 end=3"], x; shape=free), Float32[batch, 3, 4])
        @test agrees(run_lines(["node Shape in=x out=y name=n start=-2 end=9223372036854775807"], x; shape=free), Float32[3, 4])
        @test agrees(run_lines(["node Size in=x out=y name=n"], x; shape=free), fill(Float32(12batch)))
        lines = ["node Shape in=x out=s name=s start=0 end=3", "node Gather in=s,zero out=b name=g axis=0", "node Unsqueeze in=b,axes out=u name=u",
                 "node Concat in=u,rest out=t name=c axis=0", "node Reshape in=x,t out=y name=r allowzero=0"]
        @test agrees(run_lines(lines, x, "zero" => fill(Int64(0)), "axes" => Int64[0], "rest" => Int64[-1]; shape=free), reshape(x, 12, batch))
        fill_of(value) = run_lines(["node Shape in=x out=s name=s start=0 end=2", "node ConstantOfShape in=s out=y name=n value=$value"], x; shape=free)
        counted = ["node Size in=x out=s name=s", "node Range in=zero,s,five out=y name=n"]
        @test agrees(run_lines(counted, x, "zero" => fill(Int64(0)), "five" => fill(Int64(5)); shape=free), Float32.(0:5:12batch-1))
        @test agrees(fill_of("1.5"), fill(1.5f0, 3, batch)) && agrees(fill_of("2"), fill(2f0, 3, batch))
    end
end

@testset "Dropout returns its input, and a mask of ones if that is read" begin
    x = places(3, 2)
    @test agrees(run_node(node("Dropout"), x), x)
    @test agrees(run_node("node Dropout in=x out=-,y name=n", x), ones(Float32, 3, 2))
    @test agrees(run_lines(["node Dropout in=x out=a,m name=n", "node Where in=m,a,x out=y name=w"], x), x)
end
