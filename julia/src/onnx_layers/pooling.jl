# Pooling beyond what Flux's layers do, made of the functions of NNlib that they are made of.

using LinearAlgebra: norm

export AveragePool, GlobalLpPool, LpPool, MaxPoolWithIndices, Pool

"""
A pooling with dilation or, where `ceils`, with a last window that may reach beyond the padded input.
`pool` is the backend's `maxpool` or `meanpool`, `dims` its `PoolDims`; the options are in their order.
"""
struct Pool{F,D}
    pool::F
    dims::D
    kernel::Tuple
    stride::Tuple
    pad::Tuple
    dilation::Tuple
    ceil_mode::Bool
end

function (p::Pool)(x)
    ndims(x) == length(p.kernel) + 2 ||
        throw(DimensionMismatch("$(length(p.kernel) + 2) dimensions are expected, not $(ndims(x))"))
    return p.pool(x, p.dims(x, p.kernel; stride=p.stride, padding=padding(p, size(x)), dilation=p.dilation))
end

"The padding with which as many windows fit as ONNX counts."
padding(p::Pool, shape) = p.ceil_mode ?
    ntuple(i -> p.pad[i] + (iseven(i) ? overhang(p, shape, i ÷ 2) : 0), length(p.pad)) : p.pad

"How far the last window reaches beyond the padded input; one that would begin after the input is left out."
function overhang(p, shape, i)
    n, before, after = shape[i], p.pad[2i-1], p.pad[2i]
    width = p.dilation[i] * (p.kernel[i] - 1) + 1
    start = cld(n + before + after - width, p.stride[i]) * p.stride[i]
    start < n + before || (start -= p.stride[i])
    return max(0, start + width - n - before - after)
end

Base.show(io::IO, p::Pool) =
    print(io, "Pool(", p.pool, ", ", p.kernel, ", stride=", p.stride, ", pad=", p.pad, ", dilation=", p.dilation, ")")

"""
A maximum together with its place in the whole tensor, counted from 0: in each plane as it lies in memory or, where
`by_columns`, along ONNX's first spatial axis first.
"""
struct MaxPoolWithIndices{P}
    pool::P
    column_major::Bool
end

function (m::MaxPoolWithIndices)(x)
    y = m.pool(x)
    sizes = shape_of(x)[1:end-2]
    steps = m.column_major ? reverse(contiguous_strides(reverse(sizes))) : contiguous_strides(sizes)
    return y, max_indices(m.pool, x, y, steps)
end

function max_indices(p, x, y, steps)
    n = length(steps)
    found = zeros(Int64, size(y))
    planes = LinearIndices(size(x)[n+1:end])
    for i in CartesianIndices(y), tap in Iterators.reverse(CartesianIndices(p.kernel))
        at = ntuple(d -> (i[d] - 1) * p.stride[d] - p.pad[2d-1] + (tap[d] - 1) * p.dilation[d], n)
        all(d -> 0 <= at[d] < size(x, d), 1:n) && x[(at .+ 1)..., i[n+1], i[n+2]] == y[i] || continue
        # Of equal numbers the first one counts: the last that is written, the taps running backwards.
        found[i] = (planes[i[n+1], i[n+2]] - 1) * prod(size(x)[1:n]) + sum(at .* steps)
    end
    return found
end

Base.show(io::IO, m::MaxPoolWithIndices) = print(io, "MaxPoolWithIndices(", m.pool, ")")

"""
A mean whose divisor is not the window's size, which it is in Flux: `pads` tells whether the padding counts;
what lies beyond the padding never does.
"""
struct AveragePool{P}
    pool::P
    count_include_pad::Bool
end

function (m::AveragePool)(x)
    y = m.pool(x)
    for i in 1:length(m.pool.kernel)
        scale_along!(y, i, Float32[m.pool.kernel[i] / max(1, n) for n in window_counts(m, size(x, i), i, size(y, i))])
    end
    return y
end

"How many of the window's places count at each of `outputs` positions along dimension `i`, of size `n`."
function window_counts(m, n, i, outputs)
    p = m.pool
    low, high = m.count_include_pad ? (-p.pad[2i-1], n + p.pad[2i]) : (0, n)
    window_places(start) = start:p.dilation[i]:start+p.dilation[i]*(p.kernel[i]-1)
    return Int[count(at -> low <= at < high, window_places(o * p.stride[i] - p.pad[2i-1])) for o in 0:outputs-1]
end

"`y .*= weights` along dimension `d`."
scale_along!(y, d, weights) = all(isone, weights) || scale_along!(flatten_around(y, d), weights)

function scale_along!(z, weights)
    @inbounds for k in axes(z, 3), j in axes(z, 2), i in axes(z, 1)
        z[i, j, k] *= weights[j]
    end
    return nothing
end

Base.show(io::IO, m::AveragePool) = print(io, "AveragePool(", m.pool, ")")

"The `p`-norm of each window: `(Σ |x|^p)^(1/p)`, out of a [`Pool`](@ref) that takes the mean."
struct LpPool{P}
    pool::P
    p::Int
end

function (n::LpPool)(x)
    means = n.pool(Elementwise(number -> abs(number)^n.p)(x))
    size, root = prod(n.pool.kernel), inv(Float32(n.p))
    return Elementwise(mean -> (size * mean)^root)(means)
end

Base.show(io::IO, n::LpPool) = print(io, "LpPool(", n.pool, ", ", n.p, ")")

"The `p`-norm of each plane: (W, H, C, N) to (1, 1, C, N)."
struct GlobalLpPool
    p::Int
end

function (n::GlobalLpPool)(x)
    planes = reshape(x, :, size(x, ndims(x) - 1) * size(x, ndims(x)))
    y = Float32[norm(view(planes, :, i), n.p) for i in axes(planes, 2)]
    return reshape(y, ntuple(d -> d <= ndims(x) - 2 ? 1 : size(x, d), ndims(x)))
end
