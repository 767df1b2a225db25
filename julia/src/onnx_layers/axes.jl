# ONNX's axes, and functions along one axis.

export AlongAxis, Coerced2D, ArgExtreme

"""
    dimension(rank, axis)
    dimension(x, axis)

The dimension of an array of `rank` dimensions, or of `x`, that is ONNX's `axis`. Julia's order is the reverse of ONNX's;
negative axes count from the last. Throws `DimensionMismatch` if there is no such axis.
"""
function dimension(rank::Int, axis)
    d = Int(axis < 0 ? -axis : rank - axis)
    1 <= d <= rank || throw(DimensionMismatch("there is no axis $axis in a tensor of $rank dimensions"))
    return d
end

dimension(x::AbstractArray, axis) = dimension(ndims(x), axis)

"Reshape `x` to three dimensions: those before `d`, `d`, and those after it."
function flatten_around(x, d)
    return reshape(x, prod(size(x)[1:d-1]), size(x, d), prod(size(x)[d+1:end]))
end

"`f(x; dims)` along the dimension of an ONNX axis, as in softmax."
struct AlongAxis{F}
    f::F
    axis::Int
end

(a::AlongAxis)(x) = a.f(x; dims=dimension(x, a.axis))

allocates_output(a::AlongAxis) = a.f === softmax || a.f === logsoftmax

Base.show(io::IO, a::AlongAxis) = print(io, "AlongAxis(", a.f, ", ", a.axis, ")")

"`f` of `x` reshaped to a matrix at `axis`, as Softmax, LogSoftmax and Hardmax were before opset 13."
struct Coerced2D{F}
    f::F
    axis::Int
end

(c::Coerced2D)(x) = reshape(c.f(Flatten(c.axis)(x)), size(x))

"""
ONNX's ArgMax and ArgMin: the index, from 0, along `axis` of the number that `beats` all others. Of equal numbers it is
the first if `beats` is a strict comparison, and the last if not.
"""
struct ArgExtreme{F}
    beats::F
    axis::Int
    keepdims::Bool
end

function (e::ArgExtreme)(x)
    d = dimension(x, e.axis)
    y = extreme_indices(e.beats, flatten_around(x, d))
    return reshape(y, (size(x)[1:d-1]..., (e.keepdims ? (1,) : ())..., size(x)[d+1:end]...))
end

"The indices, from 0, along the second of three dimensions. The result has the other two."
function extreme_indices(beats::F, x) where {F}
    y = zeros(Int64, size(x, 1), size(x, 3))
    for outer in 1:size(x, 3), k in 2:size(x, 2), inner in 1:size(x, 1)
        beats(x[inner, k, outer], x[inner, y[inner, outer]+1, outer]) && (y[inner, outer] = k - 1)
    end
    return y
end

"ONNX's Hardmax: one at the first largest number of each line along dimension `dims`, and zero elsewhere."
function hardmax(x; dims)
    lines = flatten_around(x, dims)
    at = extreme_indices(>, lines)
    y = fill!(similar(lines), 0)
    for outer in 1:size(y, 3), inner in 1:size(y, 1)
        y[inner, at[inner, outer]+1, outer] = 1
    end
    return reshape(y, size(x))
end
