# The inputs of a node: those that the graph computes, and constants.

export Bound, Computed, COMPUTED

"The type of [`COMPUTED`](@ref)."
struct Computed end

"Marks an input that the graph computes, in a list of a node's inputs. The others are constants, or `nothing`."
const COMPUTED = Computed()

"""
    Bound(f, inputs)

Call `f` with a node's `inputs`. The arguments of the call replace those that are [`COMPUTED`](@ref), in order.
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
reshapes_input(b::Bound) = reshapes_input(b.f) && b.inputs[1] === COMPUTED

Base.show(io::IO, b::Bound) = print(io, "Bound(", b.f, ")")
