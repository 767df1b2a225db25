# Normalisation layers (Flux's src/layers/normalise.jl), as they are in test mode.

"""
    BatchNorm(channels, λ = identity; initβ, initγ, eps = 1f-5)

`λ.(γ .* (x .- μ) ./ sqrt.(σ² .+ ϵ) .+ β)` with stored γ, β, μ and σ² for each channel, as Flux's layer in test mode.

`initβ(channels)` and `initγ(channels)` return β and γ. μ is zeros and σ² is ones, to be written over, as in Flux.
"""
struct BatchNorm{F}
    λ::F
    β::Vector{Float32}
    γ::Vector{Float32}
    μ::Vector{Float32}
    σ²::Vector{Float32}
    ϵ::Float32
end

BatchNorm(channels::Int, λ=identity; initβ=n -> zeros(Float32, n), initγ=n -> ones(Float32, n), eps=1.0f-5) =
    BatchNorm(λ, initβ(channels), initγ(channels), zeros(Float32, channels), ones(Float32, channels), eps)

"Return the layer. The plain layers have only test mode."
testmode!(layer) = layer

function (b::BatchNorm)(x::Array{Float32})
    channels = length(b.γ)
    ndims(x) >= 2 && size(x, ndims(x) - 1) == channels ||
        throw(DimensionMismatch("$b expects $channels channels, but got $(size(x))"))
    y = acquire(size(x))
    pixels = prod(size(x)[1:ndims(x)-2])
    scale, shift = scale_and_shift(b)
    parallel_for(channels * size(x, ndims(x)), ELEMENT_COST * length(x)) do _, planes
        normalise!(y, x, scale, shift, b.λ, pixels, planes .- 1)
    end
    return y
end

allocates_output(::BatchNorm) = true

"The factor and the summand for each channel that are the layer without `λ`."
function scale_and_shift(b::BatchNorm)
    scale, shift = similar(b.γ), similar(b.γ)
    for c in eachindex(scale)
        scale[c] = b.γ[c] / sqrt(b.σ²[c] + b.ϵ)
        shift[c] = b.β[c] - b.μ[c] * scale[c]
    end
    return scale, shift
end

function normalise!(y, x, scale, shift, λ::F, pixels, planes) where {F}
    for plane in planes
        c = plane % length(scale) + 1
        a, b = scale[c], shift[c]
        @inbounds @simd for i in plane*pixels+1:plane*pixels+pixels
            y[i] = λ(muladd(x[i], a, b))
        end
    end
    return nothing
end

function Base.show(io::IO, b::BatchNorm)
    print(io, "BatchNorm(", length(b.γ))
    b.λ === identity || print(io, ", ", b.λ)
    print(io, ")")
end

"""
    GroupNorm(channels, G, λ = identity; initβ, initγ, eps = 1f-5)

`λ.(γ .* (x .- μ) ./ sqrt.(σ² .+ ϵ) .+ β)` with the mean and variance of each of an image's `G` groups of channels.

`initβ(channels)` and `initγ(channels)` return β and γ, one number for each channel.
"""
struct GroupNorm{F}
    G::Int
    λ::F
    β::Vector{Float32}
    γ::Vector{Float32}
    ϵ::Float32
end

function GroupNorm(channels::Int, G::Int, λ=identity;
                   initβ=n -> zeros(Float32, n), initγ=n -> ones(Float32, n), eps=1.0f-5)
    G >= 1 && channels % G == 0 ||
        throw(DimensionMismatch("$channels channels do not divide into $G groups"))
    return GroupNorm(G, λ, initβ(channels), initγ(channels), Float32(eps))
end

"""
    InstanceNorm(channels, λ = identity; initβ, initγ, affine = false, eps = 1f-5)

A [`GroupNorm`](@ref) with one channel in each group. Without `affine`, γ is ones and β zeros.
"""
InstanceNorm(channels::Int, λ=identity; initβ=n -> zeros(Float32, n), initγ=n -> ones(Float32, n), affine=false, eps=1.0f-5) =
    affine ? GroupNorm(channels, channels, λ; initβ=initβ, initγ=initγ, eps=eps) :
    GroupNorm(channels, channels, λ; eps=eps)

function (g::GroupNorm)(x::Array{Float32})
    channels = length(g.γ)
    ndims(x) >= 3 && size(x, ndims(x) - 1) == channels ||
        throw(DimensionMismatch("$g expects $channels channels, but got $(size(x))"))
    y = acquire(size(x))
    pixels = prod(size(x)[1:ndims(x)-2])
    parallel_for(g.G * size(x, ndims(x)), 2 * ELEMENT_COST * length(x)) do _, groups
        normalise_groups!(y, x, g, g.λ, pixels, groups .- 1)
    end
    return y
end

allocates_output(::GroupNorm) = true

function normalise_groups!(y, x, g, λ::F, pixels, groups) where {F}
    channels = length(g.γ)
    share = channels ÷ g.G
    for group in groups
        first = group * share * pixels
        μ, σ² = mean_and_variance(x, first, share * pixels)
        for i in 0:share-1
            c = group % g.G * share + i + 1
            scale = g.γ[c] / sqrt(σ² + g.ϵ)
            shift = g.β[c] - μ * scale
            @inbounds @simd for j in first+i*pixels+1:first+(i+1)*pixels
                y[j] = λ(muladd(x[j], scale, shift))
            end
        end
    end
    return nothing
end

"The mean and variance of the `n` numbers of `x` after `offset`. The sums are Float64, because planes can be large."
function mean_and_variance(x::Array{Float32}, offset, n)
    total, squares = 0.0, 0.0
    @inbounds @simd for i in offset+1:offset+n
        total += Float64(x[i])
    end
    μ = total / n
    @inbounds @simd for i in offset+1:offset+n
        squares += abs2(x[i] - μ)
    end
    return Float32(μ), Float32(squares / n)
end

function Base.show(io::IO, g::GroupNorm)
    print(io, "GroupNorm(", length(g.γ), ", ", g.G)
    g.λ === identity || print(io, ", ", g.λ)
    print(io, ")")
end

"""
    LayerNorm(size, scale, bias, λ, ϵ)

`λ.(scale .* (x .- μ) ./ sqrt.(σ² .+ ϵ) .+ bias)` with the mean and variance over the first dimensions, which have the
`size`. `scale` and `bias` are vectors of `prod(size)` numbers, or `nothing`. Throws `DimensionMismatch` for another size.
"""
struct LayerNorm{S,B,F}
    size::Tuple{Vararg{Int}}
    scale::S
    bias::B
    λ::F
    ϵ::Float32
end

function (l::LayerNorm)(x::Array{Float32})
    ndims(x) >= length(l.size) && size(x)[1:length(l.size)] == l.size ||
        throw(DimensionMismatch("$l expects an input that begins with $(l.size), but got $(size(x))"))
    y = normalise_columns(x, l.ϵ, prod(l.size), l.scale, l.bias)
    l.λ === identity || activate!(y, l.λ, 0, length(y))
    return y
end

allocates_output(::LayerNorm) = true

"""
    normalise_columns(x, ϵ, n, scale, bias)

Normalise each `n` consecutive numbers of `x` to mean 0 and variance 1, then apply the scale and the bias, which have `n`
elements or are `nothing`.
"""
function normalise_columns(x::Array{Float32}, ϵ, n, scale, bias)
    y = acquire(size(x))
    n == 0 && return y
    parallel_for(length(x) ÷ n, 2 * ELEMENT_COST * length(x)) do _, columns
        normalise_columns!(y, x, ϵ, n, scale, bias, columns .- 1)
    end
    return y
end

function normalise_columns!(y, x, ϵ, n, scale, bias, columns)
    for column in columns
        first = column * n
        μ, σ² = n <= SHORT_COLUMN ? short_mean_and_variance(x, first, n) : mean_and_variance(x, first, n)
        slope = inv(sqrt(σ² + ϵ))
        @inbounds @simd for i in 1:n
            y[first+i] = scale_shift((x[first+i] - μ) * slope, scale, bias, i)
        end
    end
    return nothing
end

"The most numbers whose sums need no more than Float32."
const SHORT_COLUMN = 1 << 12

"[`mean_and_variance`](@ref) with Float32 sums, which takes half the time."
@inline function short_mean_and_variance(x, offset, n)
    total, squares = 0.0f0, 0.0f0
    @inbounds @simd for i in offset+1:offset+n
        total += x[i]
    end
    μ = total / n
    @inbounds @simd for i in offset+1:offset+n
        squares += abs2(x[i] - μ)
    end
    return μ, squares / n
end

@inline scale_shift(z, ::Nothing, ::Nothing, i) = z
@inline scale_shift(z, scale, ::Nothing, i) = @inbounds z * scale[i]
@inline scale_shift(z, ::Nothing, bias, i) = @inbounds z + bias[i]
@inline scale_shift(z, scale, bias, i) = @inbounds muladd(z, scale[i], bias[i])

Base.show(io::IO, l::LayerNorm) = print(io, "LayerNorm(", l.size, ")")
