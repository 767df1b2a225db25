@testset "BatchNormalization uses the given statistics" begin
    γ, β, μ, v = numbers(4), numbers(4) .+ 1, numbers(4) ./ 2, abs.(numbers(4)) .+ 0.1f0
    line = "node BatchNormalization in=x,g,b,m,v out=y name=n epsilon=0.001 training_mode=0"
    constants = ("g" => γ, "b" => β, "m" => μ, "v" => v)
    channels(p) = reshape(p, 1, 1, 4, 1)
    x = numbers(3, 2, 4, 2)
    @test agrees(run_node(line, x, constants...),
                 channels(γ) .* (x .- channels(μ)) ./ sqrt.(channels(v) .+ 0.001f0) .+ channels(β))
    flat = numbers(4, 3)
    @test agrees(run_node(line, flat, constants...), γ .* (flat .- μ) ./ sqrt.(v .+ 0.001f0) .+ β)
end

@testset "BatchNormalization supports statistics for each position, as before opset 9" begin
    x = numbers(3, 2, 4, 2)
    γ, β, μ, v = numbers(3, 2, 4), numbers(3, 2, 4) .+ 1, numbers(3, 2, 4) ./ 2, abs.(numbers(3, 2, 4)) .+ 0.1f0
    @test agrees(run_node("node BatchNormalization in=x,g,b,m,v out=y name=n epsilon=0.001", x, "g" => γ, "b" => β, "m" => μ, "v" => v),
                 γ .* (x .- μ) ./ sqrt.(v .+ 0.001f0) .+ β)
end

"`x` minus its mean over the dimensions `dims`, divided by its standard deviation."
function standardised(x, dims, ϵ)
    n = prod(size(x, d) for d in dims)
    centred = x .- sum(x; dims=dims) ./ n
    return centred ./ sqrt.(sum(abs2, centred; dims=dims) ./ n .+ ϵ)
end

@testset "InstanceNormalization uses the statistics of each plane" begin
    γ, β = numbers(4), numbers(4) .+ 1
    for x in (numbers(3, 5, 4, 2), numbers(6, 4, 2), numbers(3, 2, 2, 4, 2))
        channels(p) = reshape(p, ntuple(_ -> 1, ndims(x) - 2)..., 4, 1)
        @test agrees(run_node("node InstanceNormalization in=x,g,b out=y name=n epsilon=0.01", x, "g" => γ, "b" => β),
                     channels(γ) .* standardised(x, Tuple(1:ndims(x)-2), 0.01f0) .+ channels(β))
    end
end

@testset "GroupNormalization has a scale for each channel, or for each group if the node has `channels`" begin
    x = numbers(3, 5, 6, 2)
    for groups in (1, 2, 3, 6)
        normal = reshape(standardised(reshape(x, 3, 5, 6 ÷ groups, groups, 2), (1, 2, 3), 0.01f0), size(x))
        line = "node GroupNormalization in=x,g,b out=y name=n epsilon=0.01 num_groups=$groups"
        γ, β = numbers(6), numbers(6) .+ 1
        @test agrees(run_node(line, x, "g" => γ, "b" => β), reshape(γ, 1, 1, 6) .* normal .+ reshape(β, 1, 1, 6))
        γ, β = numbers(groups), numbers(groups) .+ 1
        spread(p) = reshape(repeat(p; inner=6 ÷ groups), 1, 1, 6)
        @test agrees(run_node("$line channels=6", x, "g" => γ, "b" => β), spread(γ) .* normal .+ spread(β))
    end
end

@testset "LayerNormalization covers the axis and all after it, with any scale that broadcasts" begin
    x = numbers(4, 3, 5, 2)
    for axis in 0:3
        dims = Tuple(1:4-axis)
        inner = size(x)[1:4-axis]
        normal = standardised(x, dims, 0.01f0)
        line(inputs) = "node LayerNormalization in=$inputs out=y name=n axis=$axis epsilon=0.01"
        γ, β = numbers(inner...), numbers(inner...) .+ 1
        @test agrees(run_node(line("x,g,b"), x, "g" => γ, "b" => β), γ .* normal .+ β)
        @test agrees(run_node(line("x,g"), x, "g" => γ), γ .* normal)
        @test agrees(run_node(line("x,g,b"), x, "g" => numbers(4), "b" => numbers(1, 3)), numbers(4) .* normal .+ numbers(1, 3))
        @test agrees(run_node(line("x,x,x"), x), x .* normal .+ x)
    end
end

@testset "LRN divides by the squares of neighbouring channels" begin
    for x in (numbers(3, 2, 7, 2), numbers(4, 5, 2)), size in (1, 2, 3, 5)
        channels = ndims(x) - 1
        expected = similar(x)
        for at in CartesianIndices(x)
            first, last = max(1, at[channels] - (size - 1) ÷ 2), min(Base.size(x, channels), at[channels] + size ÷ 2)
            near = [x[ntuple(d -> d == channels ? c : at[d], ndims(x))...] for c in first:last]
            expected[at] = x[at] / (2 + 0.5 / size * sum(abs2, near))^0.75
        end
        @test agrees(run_node("node LRN in=x out=y name=n alpha=0.5 beta=0.75 bias=2.0 size=$size", x), expected)
    end
end

@testset "LayerNormalization also returns means and inverse standard deviations" begin
    x = numbers(4, 3, 2)
    line(outputs) = "node LayerNormalization in=x,s out=$outputs name=n axis=1 epsilon=0.01"
    μ = sum(x; dims=(1, 2)) ./ 12
    @test agrees(run_node(line("-,y"), x, "s" => numbers(4, 3)), μ)
    @test agrees(run_node(line("-,-,y"), x, "s" => numbers(4, 3)), 1 ./ sqrt.(sum(abs2, x .- μ; dims=(1, 2)) ./ 12 .+ 0.01f0))
end

@testset "BatchNormalization in training mode uses the batch's statistics, and returns running ones" begin
    x = numbers(3, 2, 4, 2)
    γ, β, m, v = numbers(4), numbers(4) .+ 1, numbers(4) ./ 2, abs.(numbers(4)) .+ 0.1f0
    line(outputs) = "node BatchNormalization in=x,g,b,m,v out=$outputs name=n epsilon=0.01 momentum=0.7 training_mode=1"
    of(outputs) = run_node(line(outputs), x, "g" => γ, "b" => β, "m" => m, "v" => v)
    channels(p) = reshape(p, 1, 1, 4, 1)
    μ = sum(x; dims=(1, 2, 4)) ./ 12
    σ² = sum(abs2, x .- μ; dims=(1, 2, 4)) ./ 12
    @test agrees(of("y"), channels(γ) .* (x .- μ) ./ sqrt.(σ² .+ 0.01f0) .+ channels(β))
    @test agrees(of("-,y"), 0.7f0 .* m .+ 0.3f0 .* vec(μ))
    @test agrees(of("-,-,y"), 0.7f0 .* v .+ 0.3f0 .* vec(σ²))
end
