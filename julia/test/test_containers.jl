# Layers made of other layers, without Flux.

const P = F.PlainLayers

small_conv() = P.Conv(numbers(3, 3, 2, 2), numbers(2); pad=1)

@testset "a Chain calls its layers in order and passes several arguments on as a tuple" begin
    x = numbers(4, 4, 2, 1)
    conv = small_conv()
    @test P.Chain([conv, conv, vec])(x) == vec(conv(conv(x)))
    @test P.Chain([first, vec])(x, 1) == vec(x)
    @test P.Chain([])(x) === x
end

@testset "a chain that ran before gives the same answer again, and keeps its input" begin
    x = numbers(4, 4, 2, 2)
    kept, conv = copy(x), small_conv()
    chain = P.Chain([conv, P.SkipConnection(P.Chain([conv, conv]), +), P.MaxPool((2, 2)), P.GlobalMeanPool()])
    expected = begin
        y = conv(x)
        y = conv(conv(y)) .+ y
        P.GlobalMeanPool()(P.MaxPool((2, 2))(y))
    end
    for _ in 1:3
        @test chain(x) == expected
    end
    @test x == kept
end

@testset "a SkipConnection connects the layers' output with its input, which it keeps" begin
    x = numbers(4, 4, 2, 1)
    kept, conv = copy(x), small_conv()
    y = conv(x)
    @test P.SkipConnection(conv, +)(x) == y .+ x
    @test P.SkipConnection(identity, +)(x) == 2 .* x
    @test P.SkipConnection(conv, (a, b) -> cat(a, b; dims=3))(x) == cat(y, x; dims=3)
    @test P.SkipConnection(P.Chain([conv, P.GlobalMeanPool()]), F.OnnxLayers.Elementwise(*))(x) == P.GlobalMeanPool()(y) .* x
    @test_throws DimensionMismatch P.SkipConnection(P.Chain([conv, P.MaxPool((2, 2))]), +)(x)
    @test x == kept
end

@testset "Parallel gives one input to all layers, and one of several inputs to each" begin
    x, z = numbers(4, 4, 2, 1), numbers(4, 4, 2, 1) .+ 1
    conv = small_conv()
    for connection in (+, -, F.OnnxLayers.Elementwise(*))
        pair = P.Parallel(connection, Any[conv, P.Chain([conv, conv])])
        combine(a, b) = connection isa F.OnnxLayers.Elementwise ? a .* b : connection(a, b)
        @test pair(x) == combine(conv(x), conv(conv(x)))
        @test pair(x, z) == pair((x, z)) == combine(conv(x), conv(conv(z)))
    end
    @test P.Parallel(+, Any[identity, conv])(x) == x .+ conv(x)
    @test P.Parallel((a, b, c) -> a .+ b .* c, Any[identity, conv, conv])(x) ≈ x .+ conv(x) .^ 2
    @test_throws DimensionMismatch P.Parallel(+, Any[conv, conv])(x, x, x)
end

@testset "adaptive poolings divide the input as Flux does" begin
    x = numbers(7, 5, 2, 2)
    @test P.AdaptiveMeanPool((1, 1))(x) ≈ sum(x; dims=(1, 2)) ./ 35
    # Windows of 7 - 2 * 2 = 3 by 5 - 1 * 2 = 3, which begin 2 apart.
    y = P.AdaptiveMaxPool((3, 2))(x)
    @test size(y) == (3, 2, 2, 2)
    @test y == [maximum(x[2i-1:2i+1, 2j-1:2j+1, c, n]) for i in 1:3, j in 1:2, c in 1:2, n in 1:2]
end

@testset "LayerNorm normalises over its first dimensions" begin
    x = numbers(3, 4, 5)
    for scale in (nothing, numbers(12) .+ 2), bias in (nothing, numbers(12))
        flat = reshape(x, 12, 5)
        centred = flat .- sum(flat; dims=1) ./ 12
        y = centred ./ sqrt.(sum(abs2, centred; dims=1) ./ 12 .+ 0.1f0)
        scale === nothing || (y = y .* scale)
        bias === nothing || (y = y .+ bias)
        @test P.LayerNorm((3, 4), scale, bias, identity, 0.1f0)(x) ≈ reshape(y, 3, 4, 5)
        @test P.LayerNorm((3, 4), scale, bias, P.relu, 0.1f0)(x) ≈ reshape(max.(y, 0), 3, 4, 5)
    end
    @test_throws DimensionMismatch P.LayerNorm((4,), nothing, nothing, identity, 0.1f0)(x)
end

"A struct with layers of its own, as people write them."
struct Wrapped{A,B}
    layers::A
    factor::B
end
(w::Wrapped)(x) = w.factor .* w.layers(x)

struct OnlyVectors
    layers::Vector{Float64}
end

@testset "fast_layer leaves alone what it does not know" begin
    for layer in (identity, sum, [1.0, 2.0], Wrapped(sum, 2), OnlyVectors([1.0]), Ref(1), "text", Dict(1 => 2), nothing, 1:3, (sum, 1))
        @test F.fast_layer(layer) === layer
    end
end
