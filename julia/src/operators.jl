# The registry of operators: how an ONNX node becomes a layer. The files in operators/ fill it, one file a topic.
#
#     operator("Conv") do op
#         op.L.Conv(constant(op, 2), ...)
#     end
#
# `op` is a NodeContext, and `op.L` is Flux or PlainLayers. A builder reads the node's attributes with `ints`, `int`,
# `float` and `text`, and its constant inputs with `constant` and `optional_constant`. It returns a layer: anything that
# can be called with the computed inputs, in the node's order. What it throws is reported with the node's name.

"""
What a builder knows of a node.

- `inputs`: for each input a constant array, [`COMPUTED`](@ref) if the graph computes it, or `nothing` if it is absent.
- `L`: the backend's module of layers.
- `activation`: the scalar function to apply to the layer's output, or `nothing`.
- `outputs`: the number of outputs up to the last one that is read.
"""
struct NodeContext
    node::Node
    inputs::Vector{Any}
    L::Module
    activation::Union{Function,Nothing}
    outputs::Int
end

"""
An entry of the registry.

- `build(op)` returns the layer.
- `any_input`: the builder accepts computed inputs beyond the first. Without it, `build` sees only constants there; a
  node with a computed one gets a [`DynamicWeights`](@ref) layer.
- `any_output`: the builder accepts `op.outputs > 1`. The layer then returns a tuple of at least as many values.
- `fuses`: the layer applies `op.activation`.
- `scalar`: for an activation, `scalar(op)` is the function that it applies to each number of its first input. The layer
  before it may apply that function instead. `nothing` for other operators.
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

# Dict{String,Any}, because Julia's system image has compiled code for that type.
const OPERATORS = Dict{String,Any}()

"""
    operator(build, name; any_input=false, any_output=false, fuses=false)

Register the builder of the operator `name`; the flags are those of [`Operator`](@ref).
"""
function operator(@nospecialize(build), name::String; any_input::Bool=false, any_output::Bool=false, fuses::Bool=false)
    OPERATORS[name] = Operator(build, any_input, any_output, fuses, nothing)
    return nothing
end

"""
    pointwise(scalar, name)

Register an activation: `scalar(op)` is the function that it applies to each number.
"""
function pointwise(@nospecialize(scalar), name::String)
    OPERATORS[name] = Operator(op -> Elementwise(scalar(op)), false, false, false, scalar)
    return nothing
end

"Throw [`OperatorError`](@ref) with the node's name, operator and `message`."
refuse(node::Node, message) = throw(OperatorError("$(label(node)): $message"))
refuse(op::NodeContext, message) = refuse(op.node, message)

"""
    ints(op, name) -> Vector{Int}
    int(op, name) -> Int
    float(op, name) -> Float32
    text(op, name) -> String

Read an attribute: a list of integers, or one value. Throws [`OperatorError`](@ref) if it is missing or malformed.
"""
ints(op::NodeContext, name) = Int[parse_value(op, name, Int, value) for value in attribute(op, name)]
int(op::NodeContext, name) = parse_value(op, name, Int, single_value(op, name))
float(op::NodeContext, name) = parse_value(op, name, Float32, single_value(op, name))
text(op::NodeContext, name) = single_value(op, name)

"`int(op, name)`, or `default` if the node has no such attribute."
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

"""
    optional_constant(op, i, T=Float32)

The `i`th input, a constant array of element type `T`, or `nothing` if it is absent. Throws [`OperatorError`](@ref) if it
is computed or of another type.
"""
function optional_constant(op::NodeContext, i, T=Float32)
    i <= length(op.inputs) && op.inputs[i] !== nothing || return nothing
    op.inputs[i] === COMPUTED && refuse(op, "input $i has to be a constant")
    op.inputs[i] isa Array{T} || refuse(op, "input $i has to be of type $T")
    return op.inputs[i]
end

"""
    constant(op, i, T=Float32)

The `i`th input, as [`optional_constant`](@ref), but throws [`OperatorError`](@ref) if it is absent.
"""
function constant(op::NodeContext, i, T=Float32)
    value = optional_constant(op, i, T)
    return value === nothing ? refuse(op, "input $i is missing") : value
end

"The strides and pads of a window in Julia's order of dimensions (width first); ONNX has the height first."
window_options(op) = (stride=spatial(op, "strides"), pad=pads(op))

"An attribute with one positive number per spatial dimension, as a tuple in Julia's order."
function spatial(op, name)
    values = ints(op, name)
    all(n -> 1 <= n <= typemax(Int32), values) || refuse(op, "the attribute '$name' has the values $values")
    return Tuple(reverse(values))
end

"""
The attribute `pads`, in ONNX (h before, w before, h after, w after), in NNlib's order (w before, w after, h before, h
after).
"""
function pads(op)
    values = ints(op, "pads")
    iseven(length(values)) && all(n -> 0 <= n <= typemax(Int32), values) ||
        refuse(op, "the attribute 'pads' has the values $values")
    n = length(values) ÷ 2
    return Tuple(Int[values[isodd(i) ? n - i ÷ 2 : 2n + 1 - i ÷ 2] for i in 1:2n])
end

"""
`f` with the node's constants as arguments, so that it takes only the computed inputs: a [`Bound`](@ref), or `f`
itself.
"""
bind_constants(op::NodeContext, f) = all(input -> input === COMPUTED, op.inputs) ? f : Bound(f, op.inputs)

"The activation that the layer has to apply, or `identity`."
activation(op::NodeContext) = op.activation === nothing ? identity : op.activation

include("operators/convolution.jl")
include("operators/pooling.jl")
include("operators/normalisation.jl")
include("operators/resampling.jl")
include("operators/elementwise.jl")
include("operators/reductions.jl")
include("operators/matmul.jl")
include("operators/shape.jl")
include("operators/indexing.jl")
include("operators/recurrent.jl")
