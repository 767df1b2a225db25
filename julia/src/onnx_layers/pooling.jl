# Poolings with options that Flux's layers do not have. They call the NNlib functions behind those layers.

using LinearAlgebra: norm

export AveragePool, GlobalLpPool, LpPool, MaxPoolWithIndices, Pool

"""
A pooling with dilation or ONNX's `ceil_mode`, in which the last window may extend beyond the padded input.

`pool` is the backend's `maxpool` or `meanpool`, and `dims` its `PoolDims`. The other fields are in their order.
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

"The padding that makes `PoolDims` count as many windows as ONNX does."
padding(p::Pool, shape) = p.ceil_mode ?
    ntuple(i -> p.pad[i] + (iseven(i) ? overhang(p, shape, i ÷ 2) : 0), length(p.pad)) : p.pad

"""
How far the last window in dimension `i` extends beyond the padded input. A window that begins after the input is left
out.
"""
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
A maximum and its index in the whole tensor, from 0: (x) to (y, indices). Within a plane, indices count along Julia's
first dimension first or, with `column_major` (ONNX's `storage_order=1`), along ONNX's first spatial axis first.
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

"The index of each maximum `y` in `x`. `steps` are the strides to count with within a plane."
function max_indices(p, x, y, steps)
    n = length(steps)
    found = zeros(Int64, size(y))
    planes = LinearIndices(size(x)[n+1:end])
    for i in CartesianIndices(y), tap in Iterators.reverse(CartesianIndices(p.kernel))
        at = ntuple(d -> (i[d] - 1) * p.stride[d] - p.pad[2d-1] + (tap[d] - 1) * p.dilation[d], n)
        all(d -> 0 <= at[d] < size(x, d), 1:n) && x[(at .+ 1)..., i[n+1], i[n+2]] == y[i] || continue
        # Of equal numbers the first counts: taps run backwards, so it is written last.
        found[i] = (planes[i[n+1], i[n+2]] - 1) * prod(size(x)[1:n]) + sum(at .* steps)
    end
    return found
end

Base.show(io::IO, m::MaxPoolWithIndices) = print(io, "MaxPoolWithIndices(", m.pool, ")")

"""
ONNX's AveragePool. Its divisor counts no positions beyond the padded input, and no padding unless `count_include_pad`;
Flux's is always the window's size. `pool` is a [`Pool`](@ref) that takes the mean.
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

"The number of positions that count in each of the `outputs` windows along dimension `i`, whose length is `n`."
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

"ONNX's LpPool: `(Σ |x|^p)^(1/p)` of each window. `pool` is a [`Pool`](@ref) that takes the mean."
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

"ONNX's GlobalLpPool: `(Σ |x|^p)^(1/p)` of each plane, (W, H, C, N) to (1, 1, C, N)."
struct GlobalLpPool
    p::Int
end

function (n::GlobalLpPool)(x)
    planes = reshape(x, :, size(x, ndims(x) - 1) * size(x, ndims(x)))
    y = Float32[norm(view(planes, :, i), n.p) for i in axes(planes, 2)]
    return reshape(y, ntuple(d -> d <= ndims(x) - 2 ? 1 : size(x, d), ndims(x)))
end
