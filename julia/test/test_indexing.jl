# Picking and replacing elements by their indices, and running sums.

@testset "GatherElements and ScatterElements read and change the same places" begin
    x = places(4, 3)
    indices = Int64[0 2 -1; 1 1 0]
    gathered(indices) = run_node("node GatherElements in=x,i out=y name=n axis=1", x, "i" => indices)
    @test agrees(gathered(indices), [x[1, 1] x[3, 2] x[4, 3]; x[2, 1] x[2, 2] x[1, 3]])
    updates = -places(2, 3)
    for (reduction, reduce) in (("none", (_, u) -> u), ("add", +), ("mul", *), ("min", min), ("max", max))
        expected = copy(x)
        for k in CartesianIndices(indices)
            i = mod(indices[k], 4) + 1
            expected[i, k[2]] = reduce(expected[i, k[2]], updates[k])
        end
        line = "node ScatterElements in=x,i,u out=y name=n axis=1 reduction=$reduction"
        @test agrees(run_node(line, x, "i" => indices, "u" => updates), expected)
    end
    for wrong in (fill(4, 1, 1), fill(0, 1, 4), fill(0, 5, 3) .+ 4)
        @test occursin("node n (GatherElements)", message(() -> gathered(Int64.(wrong)), F.ComputeError))
    end
end

@testset "ScatterND replaces blocks, and adds up what goes to one place" begin
    x = places(2, 3, 4)
    scattered(indices, updates, reduction) = run_node("node ScatterND in=x,i,u out=y name=n reduction=$reduction", x,
                                                      "i" => Int64.(indices), "u" => Float32.(updates))
    expected = copy(x)
    expected[:, :, 2] .= -1
    @test agrees(scattered(fill(1, 1, 1), fill(-1, 2, 3, 1), "none"), expected)
    expected = copy(x)
    expected[:, 3, 4] .+= 2
    @test agrees(scattered([3 -1; 2 2], fill(1, 2, 2), "add"), expected)
    for (indices, updates) in ((fill(4, 1, 1), fill(-1, 2, 3, 1)), (fill(1, 1, 1), fill(-1, 3, 3, 1)), (fill(0, 4, 1), fill(0, 1)))
        @test occursin("node n (ScatterND)", message(() -> scattered(indices, updates, "none"), F.ComputeError))
    end
end

@testset "TopK returns elements in order, of equal ones the first" begin
    x = reshape(Float32[3, 1, 3, 2, 5, 5, 5, 0], 4, 2)
    top(k, options) = run_node("node TopK in=x,k out=y name=n axis=-1 $options", x, "k" => Int64[k])
    @test agrees(top(2, "largest=1"), Float32[3 5; 3 5]) && agrees(top(3, "largest=0"), Float32[1 0; 2 5; 3 5])
    indices = run_node("node TopK in=x,k out=o,y name=n axis=-1 largest=1", x, "k" => Int64[3])
    @test agrees(indices, Float32[0 0; 2 1; 3 2])
    @test occursin("node n (TopK)", message(() -> top(5, "largest=1"), F.ComputeError))
end

@testset "CumSum and CumProd run forwards and backwards, with and without the own element" begin
    x = places(3, 2)
    run(operator, exclusive, reverse) =
        run_node("node $operator in=x,a out=y name=n exclusive=$exclusive reverse=$reverse", x, "a" => fill(Int64(1)))
    @test agrees(run("CumSum", 0, 0), cumsum(x, dims=1)) && agrees(run("CumProd", 0, 0), cumprod(x, dims=1))
    @test agrees(run("CumSum", 1, 0), Float32[0 0; 1 4; 3 9]) && agrees(run("CumSum", 0, 1), Float32[6 15; 5 11; 3 6])
    @test agrees(run("CumProd", 1, 1), Float32[6 30; 3 6; 1 1])
end
