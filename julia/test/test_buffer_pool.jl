# The pool of arrays that are used again.

@testset "only while arrays are lent, a small array is the beginning of a free larger one, of up to eight times its size" begin
    P = F.PlainLayers
    empty!(P.POOL)
    shared = P.lend_arrays() do
        large = P.acquire((8, 2))
        at = pointer(large)
        P.release!(large)
        small = P.acquire((2,))
        tiny = P.acquire((1,))
        Float32[pointer(small) == at, pointer(tiny) == at, pointer(small) == pointer(tiny)]
    end
    @test shared == [1, 0, 0]
    @test sort(length.(P.POOL)) == [1, 16]
    @test length(P.acquire((2,))) == 2
    @test sort(length.(P.POOL)) == [1, 16]
    empty!(P.POOL)
end

@testset "what is returned of lent arrays stays as it is, and the pool gets all of them back, after an error as well" begin
    P = F.PlainLayers
    empty!(P.POOL)
    y = P.lend_arrays(() -> fill!(P.acquire((3, 2)), 1))
    @test length(P.POOL) == 1
    P.lend_arrays(() -> fill!(P.acquire((6,)), 2))
    @test y == ones(3, 2)
    @test_throws ErrorException P.lend_arrays(() -> (P.acquire((6,)); P.acquire((5,)); error("no")))
    @test sort(length.(P.POOL)) == [5, 6]
    @test isempty(P.LENT) && !P.LENDING[]
    empty!(P.POOL)
end

@testset "a model's results are arrays of their own, also where they are a layer's output in another shape" begin
    window = "dilations=1,1 strides=1,1 pads=0,0,0,0 group=1"
    for last in (["node Conv in=a,w out=y name=n $window"], ["node Conv in=a,w out=b name=n $window", "node Flatten in=b out=y name=f axis=1"])
        lines = ["node Conv in=x,w out=a name=m $window"; last]
        model = F.build!(F.read_graph(graph_file((1, 2, 3, 4), ("w" => numbers(1, 1, 2, 2),), lines)), BACKENDS[1])
        first = F.predict(model, numbers(4, 3, 2, 1))
        kept = copy(first)
        second = F.predict(model, 2 .* numbers(4, 3, 2, 1))
        @test first == kept
        @test second ≈ 4 .* kept ./ 2
        @test pointer(first) != pointer(second)
    end
end
