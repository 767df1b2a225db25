# Pooling (Flux's src/layers/conv.jl and NNlib's src/pooling.jl). A maximum ignores the padding. A mean counts it as
# zeros, and divides by the window's size.

"""
    PoolDims(x, kernel; stride = kernel, padding = 0, dilation = 1)

The window of a pooling of `x`, as [`maxpool`](@ref) and [`meanpool`](@ref) take it. Unlike Flux's layers, NNlib's
pooling functions support dilation.
"""
PoolDims(x, kernel; stride=kernel, padding=0, dilation=1) =
    window(kernel; stride=stride, pad=padding, dilation=dilation)

"The largest number in each window: (W, H, C, N) to (W', H', C, N)."
maxpool(x, w::Window) = pool((a, b) -> ifelse(b > a, b, a), -Inf32, x, w)

"The mean of each window: (W, H, C, N) to (W', H', C, N)."
function meanpool(x, w::Window)
    y = pool(+, 0.0f0, x, w)
    y ./= prod(w.kernel)
    return y
end

"Reduce each window of `input` with `f`, beginning with `start`."
function pool(f::F, start, input, w::Window) where {F}
    x = as_volumes(input, w)
    x_size = spatial_size(x)
    y_size = output_size(w, x_size)
    all(isone, y_size) && all(iszero, w.pad) && w.kernel == x_size && return restore_rank(global_pool(f, start, x, 1), input)
    y = acquire((y_size..., size(x, 4), size(x, 5)))
    parallel_for(size(x, 4) * size(x, 5), length(y) * prod(w.kernel)) do _, planes
        for i in planes .- 1
            offset = i * prod(y_size)
            fill_range!(y, offset, prod(y_size), start)
            for slice in 0:w.kernel[3]-1, row in 0:w.kernel[2]-1, column in 0:w.kernel[1]-1
                accumulate_tap!(f, y, offset, y_size, x, i * prod(x_size), x_size, w, (column, row, slice))
            end
        end
    end
    return restore_rank(y, input)
end

"""
    MaxPool(window::NTuple; pad = 0, stride = window)

The largest number in each window. `pad` is as in [`Conv`](@ref).
"""
struct MaxPool
    window::Window
end

MaxPool(k::Tuple; pad=0, stride=k) = MaxPool(window(k; stride=stride, pad=pad, dilation=1))
(m::MaxPool)(x::Array{Float32}) = maxpool(x, m.window)

"""
    MeanPool(window::NTuple; pad = 0, stride = window)

The mean of each window, with padding counted as zeros.
"""
struct MeanPool
    window::Window
end

MeanPool(k::Tuple; pad=0, stride=k) = MeanPool(window(k; stride=stride, pad=pad, dilation=1))
(m::MeanPool)(x::Array{Float32}) = meanpool(x, m.window)

function Base.show(io::IO, m::Union{MaxPool,MeanPool})
    n = m.window.spatial
    kernel, pad, stride = m.window.kernel[1:n], m.window.pad[1:2n], m.window.stride[1:n]
    print(io, m isa MaxPool ? "MaxPool(" : "MeanPool(", kernel)
    all(iszero, pad) || print(io, ", pad=", all(==(pad[1]), pad) ? pad[1] : pad)
    stride == kernel || print(io, ", stride=", stride)
    print(io, ")")
end

"""
    AdaptiveMaxPool(output_size::NTuple)
    AdaptiveMeanPool(output_size::NTuple)

The largest number, or the mean, in each of `output_size` windows that divide the input, as Flux's layers choose them.
"""
struct AdaptiveMaxPool
    output_size::Tuple{Vararg{Int}}
end

struct AdaptiveMeanPool
    output_size::Tuple{Vararg{Int}}
end

(a::AdaptiveMaxPool)(x::Array{Float32}) = maxpool(x, adaptive_window(x, a.output_size))
(a::AdaptiveMeanPool)(x::Array{Float32}) = meanpool(x, adaptive_window(x, a.output_size))

"The window of a pooling of `x` to `output_size` (Flux's src/layers/conv.jl)."
function adaptive_window(x, output_size)
    n = length(output_size)
    ndims(x) == n + 2 || throw(DimensionMismatch("$(n + 2) dimensions are expected, not $(ndims(x))"))
    stride = size(x)[1:n] .÷ output_size
    return window(size(x)[1:n] .- (output_size .- 1) .* stride; stride=stride, pad=0, dilation=1)
end

"The largest number of each plane: (W, H, C, N) to (1, 1, C, N)."
struct GlobalMaxPool end

"The mean of each plane: (W, H, C, N) to (1, 1, C, N)."
struct GlobalMeanPool end

(::GlobalMaxPool)(x::Array{Float32}) = global_pool((a, b) -> ifelse(b > a, b, a), -Inf32, x, 1)
(::GlobalMeanPool)(x::Array{Float32}) = global_pool(+, 0.0f0, x, prod(size(x)[1:end-2]))

"Reduce each plane of `x` with `f`, beginning with `start`, and divide the result."
function global_pool(f::F, start, x::Array{Float32,N}, divisor) where {F,N}
    pixels = prod(size(x)[1:N-2])
    y = acquire(ntuple(i -> i <= N - 2 ? 1 : size(x, i), Val(N)))
    parallel_for(length(y), 2 * length(x)) do _, items
        for i in items
            y[i] = fold_run(start, identity, f, x, (i - 1) * pixels, pixels) / divisor
        end
    end
    return y
end

"Combine `total` with `each` of the `n` numbers of `x` after `offset`."
@inline function fold_run(total, each::E, combine::C, x, offset, n) where {E,C}
    @inbounds @simd for i in offset+1:offset+n
        total = combine(total, each(x[i]))
    end
    return total
end
@inline fold_run(total::Float32, ::typeof(identity), ::typeof(+), x::Array{Float32}, offset, n) = total + sum_run(x, offset, n)

allocates_output(::Union{MaxPool,MeanPool,AdaptiveMaxPool,AdaptiveMeanPool,GlobalMaxPool,GlobalMeanPool}) = true

Base.show(io::IO, ::GlobalMaxPool) = print(io, "GlobalMaxPool()")
Base.show(io::IO, ::GlobalMeanPool) = print(io, "GlobalMeanPool()")
