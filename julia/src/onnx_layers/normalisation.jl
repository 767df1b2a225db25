# Normalisations that Flux has no layer for.

export Affine, LayerNormalization, LocalResponseNorm, TrainingBatchNorm

"""
`σ(scale * x + shift)` with numbers for each position in the image: ONNX's BatchNormalization with `spatial=0`, which
existed before opset 9.
"""
struct Affine{N,F}
    scale::Array{Float32,N}
    shift::Array{Float32,N}
    σ::F
end

(a::Affine)(x) = Elementwise(a.σ)(Elementwise(+)(Elementwise(*)(x, a.scale), a.shift))

Base.show(io::IO, a::Affine) = print(io, "Affine(", size(a.scale), ")")

"""
ONNX's BatchNormalization in training mode: it uses the mean and variance of the batch. With more than one of its
`outputs` read, it also returns the running mean and variance, of which the part `momentum` is the old value.
"""
struct TrainingBatchNorm{F}
    γ::Vector{Float32}
    β::Vector{Float32}
    μ::Vector{Float32}
    σ²::Vector{Float32}
    ϵ::Float32
    momentum::Float32
    λ::F
    outputs::Int
end

function (t::TrainingBatchNorm)(x)
    planes = flatten_around(x, ndims(x) - 1)
    n = size(planes, 1) * size(planes, 3)
    μ = sum(planes; dims=(1, 3)) ./ n
    σ² = sum(abs2, planes .- μ; dims=(1, 3)) ./ n
    slope = reshape(t.γ, 1, :) ./ sqrt.(σ² .+ t.ϵ)
    y = reshape(t.λ.((planes .- μ) .* slope .+ reshape(t.β, 1, :)), size(x))
    running_average(old, new) = old .* t.momentum .+ vec(new) .* (1 - t.momentum)
    return t.outputs == 1 ? y : (y, running_average(t.μ, μ), running_average(t.σ², σ²))
end

Base.show(io::IO, t::TrainingBatchNorm) = print(io, "TrainingBatchNorm(", length(t.γ), ")")

"""
ONNX's LayerNormalization over `axis` and all axes after it: (x, scale) or (x, scale, bias). With more than one of its
`outputs` read, it also returns the means and the inverse standard deviations.

Flux's LayerNorm is not used: before version 0.16.11 it adds the square of `ϵ` to the variance (FluxML/Flux.jl#2701).
"""
struct LayerNormalization
    axis::Int
    ϵ::Float32
    outputs::Int
end

function (l::LayerNormalization)(x, scale, bias=nothing)
    y = normalised(l, x, scale, bias)
    return l.outputs == 1 ? y : (y, statistics(l, x)...)
end

allocates_output(l::LayerNormalization) = l.outputs == 1

"The means and inverse standard deviations, with size 1 in the normalised dimensions."
function statistics(l, x)
    last = dimension(x, l.axis)
    n = prod(size(x)[1:last])
    lines = reshape(x, n, :)
    μ = sum(lines; dims=1) ./ n
    slope = inv.(sqrt.(sum(abs2, lines .- μ; dims=1) ./ n .+ l.ϵ))
    sizes = ntuple(d -> d <= last ? 1 : size(x, d), ndims(x))
    return reshape(μ, sizes), reshape(slope, sizes)
end

"The first output. A scale or bias of another size than the normalised part is broadcast."
function normalised(l, x, scale, bias)
    inner = size(x)[1:dimension(x, l.axis)]
    fits(p) = p === nothing || length(p) == prod(inner) && all(d -> size(p, d) == inner[d], 1:length(inner))
    fits(scale) && fits(bias) && return normalise_columns(x, l.ϵ, prod(inner), scale, bias)
    y = Elementwise(*)(normalise_columns(x, l.ϵ, prod(inner), nothing, nothing), scale)
    return bias === nothing ? y : Elementwise(+)(y, bias)
end

"ONNX's LRN, over `size` neighbouring channels: `x / (bias + α / size * Σ x²)^β`."
struct LocalResponseNorm
    size::Int
    α::Float32
    β::Float32
    bias::Float32
end

function (l::LocalResponseNorm)(x)
    y = similar(x)
    normalise_response!(flatten_around(y, ndims(x) - 1), flatten_around(x, ndims(x) - 1), l)
    return y
end

function normalise_response!(y, z, l)
    pixels, channels, images = size(z)
    sums = Vector{Float32}(undef, pixels)
    for n in 1:images, c in 1:channels
        fill!(sums, 0)
        for neighbour in max(1, c - (l.size - 1) ÷ 2):min(channels, c + l.size ÷ 2)
            @inbounds @simd for i in 1:pixels
                sums[i] += abs2(z[i, neighbour, n])
            end
        end
        @inbounds @simd for i in 1:pixels
            y[i, c, n] = z[i, c, n] / (l.bias + l.α / l.size * sums[i])^l.β
        end
    end
    return nothing
end
