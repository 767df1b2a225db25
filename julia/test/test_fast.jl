# fast(model) against Flux's own answers, by layers and models of random shapes.

using Random: MersenneTwister

const Flux = FOUND.flux

"Whether fast(model) and the model in test mode agree to 1e-5 of the largest number, twice, and keep their input."
function agrees_with_flux(model, x)
    Flux.testmode!(model)
    expected, kept = model(x), copy(x)
    quick = F.fast(model)
    same(y) = size(y) == size(expected) && maximum(abs.(y .- expected)) <= 1.0f-5 * max(1, maximum(abs, expected))
    return same(quick(x)) && same(quick(x)) && x == kept
end

"Whether nothing of Flux is left in a model's fast layers."
is_converted(model) = is_ours(F.fast(model).layers)
is_ours(c::Union{P.Chain,P.Parallel}) = all(is_ours, c.layers)
is_ours(s::P.SkipConnection) = is_ours(s.layers)
is_ours(layer) = parentmodule(typeof(layer)) in (P, F.OnnxLayers) || layer isa Function

"Give a BatchNorm statistics that are not those of a new one."
function with_statistics(rng, norm)
    norm.μ .= randn(rng, Float32, norm.chs)
    norm.σ² .= rand(rng, Float32, norm.chs) .+ 0.1f0
    if norm.affine
        norm.γ .= randn(rng, Float32, norm.chs)
        norm.β .= randn(rng, Float32, norm.chs)
    end
    return norm
end

"The activations that Flux has, of one argument."
activations() = Any[identity, tanh, Flux.relu, Flux.leakyrelu, Flux.elu, Flux.celu, Flux.sigmoid, Flux.softplus, Flux.softsign,
    Flux.mish, Flux.gelu, Flux.hardsigmoid, Flux.hardswish, Flux.relu6, Flux.hardtanh, Flux.swish, Flux.selu, Flux.logsigmoid,
    Flux.lisht, Flux.tanhshrink, Flux.softshrink, Flux.trelu]

"A struct that applies its activation to each number."
struct Gated{L,F}
    layer::L
    activation::F
end
(g::Gated)(x) = x .* g.activation.(g.layer(x))

"The options of a window of `n` dimensions, drawn by chance."
random_window(rng, n) = (stride=Tuple(rand(rng, 1:3, n)), pad=Tuple(rand(rng, 0:2, 2n)), dilation=Tuple(rand(rng, 1:2, n)))

if Flux !== nothing
    @testset "Flux's models are made fast wherever Flux loads" begin
        @test FOUND.name == "fast"
    end

    @testset "convolutions of random shapes are as Flux's, with $σ" for (i, σ) in enumerate(activations())
        rng = MersenneTwister(i)
        for n in 1:3, _ in 1:2
            groups = rand(rng, 1:3)
            channels = groups * rand(rng, 1:3) => groups * rand(rng, 1:3)
            kernel = Tuple(rand(rng, 1:3, n))
            x = randn(rng, Float32, rand(rng, 8:12, n)..., channels[1], rand(rng, 1:3))
            for layer in (Flux.Conv(kernel, channels, σ; groups=groups, bias=rand(rng, Bool), random_window(rng, n)...),
                          Flux.ConvTranspose(kernel, channels, σ; groups=groups, stride=2, pad=0, bias=rand(rng, Bool)),
                          Flux.CrossCor(kernel, channels, σ; random_window(rng, n)...))
                layer.bias === false || (layer.bias .= randn(rng, Float32, channels[2]))
                @test agrees_with_flux(layer, x) && is_converted(layer)
            end
        end
    end

    @testset "Dense of any rank is as Flux's, with $σ" for (i, σ) in enumerate(activations())
        rng = MersenneTwister(i)
        layer = Flux.Dense(randn(rng, Float32, 5, 7), randn(rng, Float32, 5), σ)
        for x in (randn(rng, Float32, 7), randn(rng, Float32, 7, 3), randn(rng, Float32, 7, 3, 2))
            @test agrees_with_flux(layer, x) && is_converted(layer)
        end
        @test agrees_with_flux(Flux.Dense(7 => 4, σ; bias=false), randn(rng, Float32, 7, 2))
    end

    @testset "poolings of random shapes are as Flux's" begin
        rng = MersenneTwister(1)
        for n in 1:3, _ in 1:4
            k = Tuple(rand(rng, 1:3, n))
            x = randn(rng, Float32, rand(rng, 7:12, n)..., rand(rng, 1:4), rand(rng, 1:3))
            options = (stride=Tuple(rand(rng, 1:3, n)), pad=min.(rand(rng, 0:1), minimum(k) - 1))
            out = Tuple(rand(rng, 1:4, n))
            for layer in (Flux.MaxPool(k; options...), Flux.MeanPool(k; options...), Flux.GlobalMeanPool(), Flux.GlobalMaxPool(),
                          Flux.AdaptiveMaxPool(out), Flux.AdaptiveMeanPool(out))
                @test agrees_with_flux(layer, x) && is_converted(layer)
            end
        end
    end

    @testset "normalisations are as Flux's, with $σ" for (i, σ) in enumerate(activations())
        rng = MersenneTwister(i)
        for x in (randn(rng, Float32, 5, 4, 6, 2), randn(rng, Float32, 9, 6, 3))
            layers = Any[
                with_statistics(rng, Flux.BatchNorm(6, σ)), with_statistics(rng, Flux.BatchNorm(6, σ; affine=false, eps=1.0f-2)),
                Flux.GroupNorm(6, 3, σ; initγ=n -> randn(rng, Float32, n), initβ=n -> randn(rng, Float32, n)), Flux.GroupNorm(6, 2, σ; affine=false),
                Flux.InstanceNorm(6, σ; affine=true, initγ=n -> randn(rng, Float32, n)), Flux.InstanceNorm(6, σ),
                Flux.LayerNorm(size(x, 1), σ), Flux.LayerNorm(size(x)[1:2], σ; eps=0.1f0), Flux.LayerNorm(size(x, 1), σ; affine=false)]
            for layer in layers
                @test agrees_with_flux(layer, x) && is_converted(layer)
            end
        end
    end

    @testset "batch norms and activations are folded into the layer before them" begin
        rng = MersenneTwister(2)
        x = randn(rng, Float32, 9, 8, 4, 2)
        norm(n, σ=Flux.relu) = with_statistics(rng, Flux.BatchNorm(n, σ))
        for layer in (Flux.Conv((3, 3), 4 => 6; pad=1), Flux.Conv((3, 3), 4 => 6; bias=false, groups=2), Flux.CrossCor((3, 3), 4 => 6),
                      Flux.ConvTranspose((2, 2), 4 => 6; stride=2), Flux.ConvTranspose((3, 3), 4 => 6; groups=2), Flux.ConvTranspose((3, 3), 4 => 6; bias=false))
            layer.bias === false || (layer.bias .= randn(rng, Float32, 6))
            for rest in ((norm(6),), (norm(6, identity), Flux.Dropout(0.5), Flux.relu), (Base.BroadcastFunction(Flux.sigmoid),))
                model = Flux.Chain(layer, rest...)
                @test agrees_with_flux(model, x)
                rest[1] isa Flux.BatchNorm && length(rest) == 3 || @test F.fast(model).layers isa Union{P.Conv,P.ConvTranspose}
            end
            # An activation between them forbids it.
            active = Flux.Chain(layer, Flux.relu, norm(6))
            @test agrees_with_flux(active, x) && length(F.fast(active).layers) == 2
        end
        dense = Flux.Chain(Flux.Dense(7 => 5), norm(5), Flux.softmax)
        @test agrees_with_flux(dense, randn(rng, Float32, 7, 3)) && length(F.fast(dense).layers) == 2
    end

    @testset "containers, nested and named, are as Flux's" begin
        rng = MersenneTwister(3)
        x = randn(rng, Float32, 8, 8, 4, 2)
        conv(n=4) = Flux.Conv((3, 3), 4 => n; pad=1)
        block() = Flux.Chain(conv(), with_statistics(rng, Flux.BatchNorm(4, Flux.relu)), conv())
        gate = Flux.SkipConnection(Flux.Chain(Flux.AdaptiveMeanPool((1, 1)), Flux.Conv((1, 1), 4 => 4, Flux.sigmoid)), .*)
        joined = Flux.Parallel((a, b) -> cat(a, b; dims=3), conv(), block())
        for model in (Flux.Chain(Flux.SkipConnection(block(), +), Flux.relu, block()), Flux.Chain(gate, block()), joined,
                      Flux.Chain(one=conv(), two=Flux.Chain(a=block(), b=Flux.Parallel(+, x=conv(), y=block()))),
                      Flux.Chain([conv(), block()]), Flux.Parallel(+, conv(), identity), Flux.Parallel(+, conv(), conv(), conv()),
                      Flux.Chain(joined, Flux.GlobalMeanPool(), Flux.flatten, Flux.Dense(8 => 3), Flux.softmax),
                      Flux.Maxout(() -> conv(), 3), Wrapped(block(), 3), Flux.Chain(Wrapped(conv(), 2), conv()),
                      block() ∘ conv())
            @test agrees_with_flux(model, x)
        end
        heads = Flux.Parallel(vcat, Flux.Dense(3 => 2), Flux.Dense(4 => 5))
        a, b = randn(rng, Float32, 3, 2), randn(rng, Float32, 4, 2)
        @test F.fast(heads)(a, b) ≈ heads(a, b) && F.fast(heads)((a, b)) ≈ heads((a, b))
        attention = Flux.MultiHeadAttention(8; nheads=2)
        tokens = randn(rng, Float32, 8, 5, 2)
        @test F.fast(attention)(tokens)[1] ≈ attention(tokens)[1]
    end

    @testset "scales are as Flux's, and those of channels are folded" begin
        rng = MersenneTwister(6)
        x = randn(rng, Float32, 7, 6, 5, 2)
        for scale in (Flux.Scale(1, 1, 5, Flux.relu), Flux.Scale(7), Flux.Scale(7, 6, Flux.sigmoid), Flux.Scale(randn(rng, Float32, 7, 6, 5), false))
            @test agrees_with_flux(scale, x) && is_converted(scale)
        end
        by_channel = Flux.Scale(randn(rng, Float32, 1, 1, 4), randn(rng, Float32, 1, 1, 4), Flux.relu)
        conv = Flux.Chain(Flux.Conv((3, 3), 5 => 4), by_channel)
        @test agrees_with_flux(conv, x) && F.fast(conv).layers isa P.Conv
        dense = Flux.Chain(Flux.Dense(7 => 4), Flux.Scale(randn(rng, Float32, 4), false))
        @test agrees_with_flux(dense, x) && F.fast(dense).layers isa P.Dense
    end

    @testset "a struct's own functions stay, as it may apply them to each number" begin
        x = randn(MersenneTwister(7), Float32, 8, 8, 4, 2)
        conv() = Flux.Conv((3, 3), 4 => 4; pad=1)
        for model in (Gated(conv(), Flux.relu), Flux.Chain(conv(), Gated(Flux.Chain(conv(), Flux.relu), Flux.sigmoid)))
            @test agrees_with_flux(model, x)
        end
        @test F.fast(Gated(conv(), Flux.relu)).layers.layer isa P.Conv
    end

    @testset "what is in training mode, or has other weights than Float32, stays Flux's" begin
        x = randn(MersenneTwister(4), Float32, 8, 8, 4, 2)
        for layer in (Flux.trainmode!(Flux.BatchNorm(4)), Flux.BatchNorm(4; track_stats=false), Flux.f64(Flux.Conv((3, 3), 4 => 2)),
                      Flux.f16(Flux.Dense(4 => 2)), Flux.trainmode!(Flux.Dropout(0.5)), Flux.InstanceNorm(4; track_stats=true))
            @test F.fast_layer(layer) === layer
        end
    end

    @testset "inputs of other types are taken as Flux takes them" begin
        conv, dense = Flux.Conv((3, 3), 2 => 3), Flux.Dense(4 => 2)
        x = rand(MersenneTwister(5), 1:9, 6, 6, 2, 1)
        for input in (x, view(Float32.(x), 1:5, :, :, :), permutedims(Float32.(x), (2, 1, 3, 4)), PermutedDimsArray(Float32.(x), (2, 1, 3, 4)))
            @test F.fast(conv)(input) ≈ conv(input)
        end
        @test F.fast(dense)(view(Float32.(x), 1:4, 1, 1, :)) ≈ dense(view(Float32.(x), 1:4, 1, 1, :))
    end

    @testset "several tasks may call a fast model" begin
        model = Flux.Chain(Flux.Conv((3, 3), 2 => 4, Flux.relu), Flux.GlobalMeanPool(), Flux.flatten)
        quick, xs = F.fast(model), [randn(MersenneTwister(i), Float32, 9, 9, 2, i) for i in 1:4]
        answers = map(fetch, [Threads.@spawn(quick(x)) for x in xs])
        @test all(answers .≈ model.(xs))
    end
end
