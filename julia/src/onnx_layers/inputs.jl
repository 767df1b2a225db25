# Axes and inputs as ONNX counts and lists them.

"""
The dimension of `x` that ONNX calls `axis`: Julia's dimensions run the other way. Negative axes count
from the last.
"""
function dimension(x, axis)
    d = axis < 0 ? -axis : ndims(x) - axis
    1 <= d <= ndims(x) || throw(DimensionMismatch("there is no axis $axis in a tensor of $(ndims(x)) dimensions"))
    return d
end

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
