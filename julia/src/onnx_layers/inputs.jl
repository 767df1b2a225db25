# Axes and inputs as ONNX counts and lists them.

export Bound, Computed, COMPUTED

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
    arguments, next = copy(b.inputs), 0
    for i in eachindex(arguments)
        arguments[i] === COMPUTED && (arguments[i] = xs[next+=1])
    end
    return b.f(arguments...)
end

allocates_output(b::Bound) = allocates_output(b.f)

Base.show(io::IO, b::Bound) = print(io, "Bound(", b.f, ")")
