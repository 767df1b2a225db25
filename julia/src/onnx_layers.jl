"""
What ONNX has and Flux has no layer for. Both backends use these; where one needs a function of Flux's
(`softmax`, `maxpool`), it holds the backend's.
"""
module OnnxLayers

Base.Experimental.@optlevel 2

export AlongAxis, Bound, Clamp, Computed, COMPUTED, Concat, DilatedPool, Elementwise, Flatten, Product, Reshape,
    Transpose, UnpaddedMean

"""
The dimension of `x` that ONNX calls `axis`: Julia's dimensions run the other way. Negative axes count
from the last.
"""
function dimension(x, axis)
    d = axis < 0 ? -axis : ndims(x) - axis
    1 <= d <= ndims(x) || throw(DimensionMismatch("there is no axis $axis in a tensor of $(ndims(x)) dimensions"))
    return d
end

"""
    Elementwise(f)

`f` of numbers applied element by element, to any number of arrays. Numpy's broadcasting aligns shapes at
the last dimension, which is Julia's first: where `broadcast` aligns them.
"""
struct Elementwise{F}
    f::F
end

(e::Elementwise)(xs...) = broadcast(e.f, xs...)

# Written out because compiling a broadcast is a good part of the time to the first answer.
function (e::Elementwise)(x::Array{Float32})
    y = similar(x)
    @inbounds @simd for i in eachindex(x)
        y[i] = e.f(x[i])
    end
    return y
end

function (e::Elementwise)(a::Array{Float32,N}, b::Array{Float32,N}) where {N}
    size(a) == size(b) || return broadcast(e.f, a, b)
    y = similar(a)
    @inbounds @simd for i in eachindex(a, b)
        y[i] = e.f(a[i], b[i])
    end
    return y
end

Base.show(io::IO, e::Elementwise) = print(io, "Elementwise(", e.f, ")")

"The numbers between `low` and `high`."
struct Clamp
    low::Float32
    high::Float32
end

(c::Clamp)(x) = min(max(x, c.low), c.high)

"Stands for an input that is computed, where those of a node are listed; the others are constants."
struct Computed end
const COMPUTED = Computed()

"""
    Bound(f, inputs)

`f` called with a node's `inputs`, of which those that are `COMPUTED` are the arguments.
"""
struct Bound{F}
    f::F
    inputs::Vector{Any}
end

function (b::Bound)(xs...)
    next = 0
    return b.f((input === COMPUTED ? xs[next+=1] : input for input in b.inputs)...)
end

Base.show(io::IO, b::Bound) = print(io, "Bound(", b.f, ")")

"`f(x; dims)` along one of ONNX's axes: softmax and its like."
struct AlongAxis{F}
    f::F
    axis::Int
end

(a::AlongAxis)(x) = a.f(x; dims=dimension(x, a.axis))

Base.show(io::IO, a::AlongAxis) = print(io, "AlongAxis(", a.f, ", ", a.axis, ")")

"Any tensor as a matrix, cut before `axis`: (inner..., outer...) to (inner, outer)."
struct Flatten
    axis::Int
end

function (f::Flatten)(x)
    inner = f.axis < 0 ? -f.axis : ndims(x) - f.axis
    0 <= inner <= ndims(x) || throw(DimensionMismatch("there is no axis $(f.axis) in a tensor of $(ndims(x)) dimensions"))
    return reshape(x, prod(size(x)[1:inner]), prod(size(x)[inner+1:end]))
end

"ONNX's Reshape: `shape` is outermost first, 0 keeps the input's dimension, -1 is what is left."
struct Reshape
    shape::Vector{Int}
end

function (r::Reshape)(x)
    wanted = Int[n == 0 ? size(x, dimension(x, i - 1)) : n for (i, n) in enumerate(r.shape)]
    free = findfirst(==(-1), wanted)
    if free !== nothing
        rest = -prod(wanted)
        rest > 0 && length(x) % rest == 0 ||
            throw(DimensionMismatch("a tensor of shape $(reverse(size(x))) cannot become $(Tuple(r.shape))"))
        wanted[free] = length(x) ÷ rest
    end
    return reshape(x, Tuple(reverse(wanted)))
end

struct Concat
    axis::Int
end

(c::Concat)(xs...) = cat(xs...; dims=dimension(first(xs), c.axis))

"`permutation` is in Julia's order of dimensions."
struct Transpose{N}
    permutation::NTuple{N,Int}
end

(t::Transpose)(x) = permutedims(x, t.permutation)

"""
The general Gemm: `σ.(α * B * A .+ β .* C)`, for ONNX's row-major (M, K) is Julia's (K, M), and A * B there
is B * A here. `a_flips` and `b_flips` are transA and transB.
"""
struct Product{F}
    α::Float32
    β::Float32
    a_flips::Bool
    b_flips::Bool
    σ::F
end

(p::Product)(a, b) = p.σ.(p.α .* (turned(b, p.b_flips) * turned(a, p.a_flips)))
(p::Product)(a, b, ::Nothing) = p(a, b)
(p::Product)(a, b, c) = p.σ.(p.α .* (turned(b, p.b_flips) * turned(a, p.a_flips)) .+ p.β .* c)

turned(x, flips) = flips ? permutedims(x) : x

"Pooling with dilation, which Flux's layers lack and the functions of NNlib below them have."
struct DilatedPool{F,D}
    pool::F
    dims::D
    kernel::Tuple
    stride::Tuple
    pad::Tuple
    dilation::Tuple
end

(p::DilatedPool)(x) = p.pool(x, p.dims(x, p.kernel; stride=p.stride, padding=p.pad, dilation=p.dilation))

Base.show(io::IO, p::DilatedPool) = print(io, "DilatedPool(", p.pool, ", ", p.kernel, ", dilation=", p.dilation, ")")

"A mean pooling whose divisor leaves the padding out: Flux's counts it in."
struct UnpaddedMean{P}
    pool::P
end

function (m::UnpaddedMean)(x)
    ones = fill!(similar(x, size(x)[1:end-2]..., 1, 1), 1)
    return m.pool(x) ./ m.pool(ones)
end

Base.show(io::IO, m::UnpaddedMean) = print(io, "UnpaddedMean(", m.pool, ")")

end
