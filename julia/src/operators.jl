# The registry: how an ONNX operator becomes a layer. Each theme has a file in operators/.
#
#     operator("Conv") do op
#         op.L.Conv(constant(op, 2), ...)
#     end
#
# `op.L` is Flux or PlainLayers. A builder reads the node's attributes with `ints`, `int`, `float` and
# `word`, its constant inputs with `constant` and `optional`, and returns a layer: anything that can be
# called with the computed inputs, in the node's order. What it throws is reported with the node's name.

"""
What a builder sees: the node, its inputs (an array, `COMPUTED`, or `nothing` where absent), the layers, the
function that the layer applies to what it makes, and the number of outputs wanted: those up to the last that
is read.
"""
struct NodeContext
    node::Node
    inputs::Vector{Any}
    L::Module
    activation::Union{Function,Nothing}
    outputs::Int
end

"""
`build(op)` makes the layer, with all inputs but the first being constants, unless `any_input`: where one is computed,
the layer is built anew for each call ([`BuiltLate`](@ref)). `fuses` tells that the layer applies `op.activation`, the
activation that follows it. Where `op.outputs` is more than 1, the layer returns a tuple of at least as many values; only
those with `any_output` can.
`number`, if there is one, is an activation: `number(op)` is the function that the layer applies to each number
of its first input, and that the layer before may apply instead.
"""
struct Operator
    build::Function
    any_input::Bool
    any_output::Bool
    fuses::Bool
    scalar::Union{Function,Nothing}
    Operator(@nospecialize(build), any_input, any_output, fuses, @nospecialize(scalar)) =
        new(build, any_input, any_output, fuses, scalar)
end

# Any, as for such a dictionary Julia brings compiled code along.
const OPERATORS = Dict{String,Any}()

function operator(@nospecialize(build), name::String; any_input::Bool=false, any_output::Bool=false, fuses::Bool=false)
    OPERATORS[name] = Operator(build, any_input, any_output, fuses, nothing)
    return nothing
end

"Register the activation whose function of a number is `number(op)`."
function pointwise(@nospecialize(scalar), name::String)
    OPERATORS[name] = Operator(op -> Elementwise(scalar(op)), false, false, false, scalar)
    return nothing
end

refuse(node::Node, message) = throw(OperatorError("$(label(node)): $message"))
refuse(op::NodeContext, message) = refuse(op.node, message)

"The attribute as a list of whole numbers; [`int`](@ref), [`float`](@ref) and [`word`](@ref) read one of their kind."
ints(op::NodeContext, name) = Int[parse_value(op, name, Int, value) for value in attribute(op, name)]
int(op::NodeContext, name) = parse_value(op, name, Int, single_value(op, name))
float(op::NodeContext, name) = parse_value(op, name, Float32, single_value(op, name))
text(op::NodeContext, name) = single_value(op, name)

"`int(op, name)`, or `default` where the operator's version has no such attribute."
int(op::NodeContext, name, default) = haskey(op.node.attributes, name) ? int(op, name) : default

function attribute(op, name)
    haskey(op.node.attributes, name) || refuse(op, "the attribute '$name' is missing")
    return op.node.attributes[name]
end

function single_value(op, name)
    values = attribute(op, name)
    length(values) == 1 || refuse(op, "the attribute '$name' should be one value, not $(length(values))")
    return values[1]
end

function parse_value(op, name, T, value)
    result = tryparse(T, value)
    result === nothing && refuse(op, "the attribute '$name' has the value '$value'")
    return result
end

"The `i`th input, a constant of element type `T`; `nothing` where it is absent."
function optional_constant(op::NodeContext, i, T=Float32)
    i <= length(op.inputs) && op.inputs[i] !== nothing || return nothing
    op.inputs[i] === COMPUTED && refuse(op, "input $i has to be a constant")
    op.inputs[i] isa Array{T} || refuse(op, "input $i has to be of type $T")
    return op.inputs[i]
end

"The `i`th input, a constant that has to be there."
function constant(op::NodeContext, i, T=Float32)
    value = optional_constant(op, i, T)
    return value === nothing ? refuse(op, "input $i is missing") : value
end

"The options of a window: ONNX names height before width, Julia's dimensions run the other way."
window_options(op) = (stride=spatial(op, "strides"), pad=pads(op))

function spatial(op, name)
    values = ints(op, name)
    all(n -> 1 <= n <= typemax(Int32), values) || refuse(op, "the attribute '$name' has the values $values")
    return Tuple(reverse(values))
end

"ONNX's (h begin, w begin, h end, w end) as NNlib's (w begin, w end, h begin, h end)."
function pads(op)
    values = ints(op, "pads")
    iseven(length(values)) && all(n -> 0 <= n <= typemax(Int32), values) ||
        refuse(op, "the attribute 'pads' has the values $values")
    n = length(values) ÷ 2
    return Tuple(Int[values[isodd(i) ? n - i ÷ 2 : 2n + 1 - i ÷ 2] for i in 1:2n])
end

"`f` with the node's constants bound, so that it takes the computed inputs alone."
bind_constants(op::NodeContext, f) = all(input -> input === COMPUTED, op.inputs) ? f : Bound(f, op.inputs)

"The activation to build into the layer."
activation(op::NodeContext) = op.activation === nothing ? identity : op.activation

include("operators/convolution.jl")
include("operators/pooling.jl")
include("operators/normalisation.jl")
include("operators/resampling.jl")
include("operators/elementwise.jl")
include("operators/reductions.jl")
include("operators/matmul.jl")
include("operators/shape.jl")
