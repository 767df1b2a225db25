# Chain, Dense and BatchNorm (Flux's src/layers/basic.jl and normalise.jl), batched_mul (NNlib's src/batched).

"""
    Chain(layers::Vector)

Calls the layers one after the other; `chain[i]` is one of them.
"""
struct Chain
    layers::Vector{Any}
end

function (c::Chain)(x)
    for layer in c.layers
        x = layer(x)
    end
    return x
end

Base.getindex(c::Chain, i) = c.layers[i]
Base.length(c::Chain) = length(c.layers)

function Base.show(io::IO, c::Chain)
    print(io, "Chain([")
    join(io, c.layers, ", ")
    print(io, "])")
end

"""
    Dense(W, bias, σ = identity)

`σ.(W * x .+ bias)` with `W` of (out, in) and a bias of length `out`, or `false`: (in, ...) becomes
(out, ...), all further dimensions being batches.
"""
struct Dense
    weight::Matrix{Float32}
    bias::Union{Vector{Float32},Bool}
    σ::Any
    function Dense(weight, bias, σ=identity)
        bias === false || length(bias) == size(weight, 1) ||
            throw(DimensionMismatch("$(length(bias)) biases for $(size(weight, 1)) outputs"))
        new(weight, bias, σ)
    end
end

function (d::Dense)(x::Array{Float32})
    out, width = size(d.weight)
    ndims(x) >= 1 && size(x, 1) == width ||
        throw(DimensionMismatch("$d expects size(input, 1) == $width, but got $(size(x))"))
    columns = length(x) ÷ max(1, width)
    y = acquire((out, columns))
    parallel_for(columns, length(d.weight) * columns) do _, items
        first, n = items[1] - 1, length(items)
        for column in items
            d.bias === false ? fill_range!(y, out * (column - 1), out) : copyto!(y, out * (column - 1) + 1, d.bias, 1, out)
        end
        GC.@preserve x y begin
            from, to = matrix_view(x, width * first, width, n), matrix_view(y, out * first, out, n)
            if n == 1
                BLAS.gemv!('N', 1.0f0, d.weight, vector_view(from), 1.0f0, vector_view(to))
            elseif width > 0
                BLAS.gemm!('N', 'N', 1.0f0, d.weight, from, 1.0f0, to)
            end
        end
        activate!(y, d.σ, out * first, out * n)
    end
    return reshape(y, out, size(x)[2:end]...)
end

allocates_output(::Dense) = true

function Base.show(io::IO, d::Dense)
    print(io, "Dense(", size(d.weight, 2), " => ", size(d.weight, 1))
    d.σ === identity || print(io, ", ", d.σ)
    d.bias === false && print(io, "; bias=false")
    print(io, ")")
end

"""
    batched_mul(A, B)

`A[:, :, k] * B[:, :, k]` for each `k`; the third dimension of one of them may be 1: that matrix is then used
for all.
"""
function batched_mul(A::Array{Float32,3}, B::Array{Float32,3})
    m, inner, a_count = size(A)
    _, n, b_count = size(B)
    size(B, 1) == inner && (a_count == b_count || a_count == 1 || b_count == 1) ||
        throw(DimensionMismatch("matrices of $(size(A)) and $(size(B)) have no product"))
    y = Array{Float32,3}(undef, m, n, a_count == 1 ? b_count : a_count)
    inner == 0 && return fill!(y, 0)
    parallel_for(size(y, 3), length(y) * inner) do _, items
        for k in items .- 1
            GC.@preserve A B y BLAS.gemm!('N', 'N', 1.0f0,
                matrix_view(A, a_count == 1 ? 0 : k * m * inner, m, inner),
                matrix_view(B, b_count == 1 ? 0 : k * inner * n, inner, n),
                0.0f0, matrix_view(y, k * m * n, m, n))
        end
    end
    return y
end

"""
    BatchNorm(channels, λ = identity; initβ, initγ, eps = 1f-5)

`λ.(γ .* (x .- μ) ./ sqrt.(σ² .+ ϵ) .+ β)` with a channel's own γ, β, μ and σ²: Flux's layer in test
mode, the only mode there is here. `initβ(channels)` and `initγ(channels)` give β and γ; μ and σ² are
zeros and ones to write over, as in Flux.
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

"These layers know no other mode than the one for inference."
testmode!(layer) = layer

function (b::BatchNorm)(x::Array{Float32})
    channels = length(b.γ)
    ndims(x) >= 2 && size(x, ndims(x) - 1) == channels ||
        throw(DimensionMismatch("$b expects $channels channels, but got $(size(x))"))
    y = similar(x)
    pixels = prod(size(x)[1:ndims(x)-2])
    normalise!(y, x, b, b.λ, pixels)
    return y
end

function normalise!(y, x, b, λ::F, pixels) where {F}
    channels = length(b.γ)
    for plane in 0:channels*size(x, ndims(x))-1
        c = plane % channels + 1
        scale = b.γ[c] / sqrt(b.σ²[c] + b.ϵ)
        shift = b.β[c] - b.μ[c] * scale
        @inbounds @simd for i in plane*pixels+1:plane*pixels+pixels
            y[i] = λ(muladd(x[i], scale, shift))
        end
    end
    return nothing
end

function Base.show(io::IO, b::BatchNorm)
    print(io, "BatchNorm(", length(b.γ))
    b.λ === identity || print(io, ", ", b.λ)
    print(io, ")")
end
