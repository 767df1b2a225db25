# Pieces: what the nodes of a graph become. The functions in operators/ make them, one function an operator.

"A layer of a model: the Julia code that makes it, its weights by field, and the kind of name that it gets."
struct Layer
    kind::String
    code::String
    weights::Vector{Pair{Symbol,Any}}
end

"""
A part of the model that computes one value.

- `inputs`: the names of the values that it reads.
- `layer`: the layer to call with its input, or `nothing`; then `expression` is what to compute, with `⟦1⟧` for the first
  of the inputs, `⟦c1⟧` for the first of the `constants`, and `⟦batch⟧` for the number of pictures.
- `name`: the name of a function that computes the expression from its inputs, or `""`.
"""
struct Piece
    node::Node
    inputs::Vector{String}
    output::String
    layer::Union{Layer,Nothing}
    expression::String
    constants::Vector{Array}
    name::String
end

"A value that depends on the pictures: its name, and its size in both batches."
struct Value
    name::String
    sizes::NTuple{2,Vector{Int}}
end

"A constant whose size depends on the number of pictures: the array for one, which is repeated along dimension `d`."
struct Repeated
    array::Array
    d::Int
end

"Any other constant that depends on the number of pictures: its arrays for the two batches of the trace."
struct Unequal
    arrays::NTuple{2,Any}
end

"A function that is applied to each number: its `name` or, if that is empty, `formula(x)` is its code for a number `x`."
struct Scalar
    name::String
    formula::Function
end

Scalar(name::String) = Scalar(name, x -> "$name($x)")
Scalar(formula::Function) = Scalar("", formula)

as_function(s::Scalar) = isempty(s.name) ? "x -> $(s.formula("x"))" : s.name
as_broadcast(s::Scalar, x) = isempty(s.name) ? "@.($(s.formula(x)))" : "$(s.name).($x)"

"""
A node that is being written. `arguments` are its inputs: a [`Value`](@ref), an array, a [`Repeated`](@ref) or
[`Unequal`](@ref) constant, or `nothing` for one that is absent. `op` has its attributes and constants. `sizes` are the
sizes of its first output in both batches.
"""
mutable struct Site
    op::NodeContext
    arguments::Vector{Any}
    outputs::Vector{String}
    sizes::NTuple{2,Vector{Int}}
    activation::Union{Scalar,Nothing}
    inputs::Vector{String}
    constants::Vector{Array}
    pieces::Vector{Piece}
end

Site(op, arguments, outputs, sizes, activation) =
    Site(op, arguments, outputs, sizes, activation, String[], Array[], Piece[])

"The functions that write a node, by operator: `writer(site)` adds to its `pieces`."
const WRITERS = Dict{String,Function}()

writes(f, names...) = foreach(name -> WRITERS[name] = f, names)

cannot(site, why) = refuse(site.op, "it cannot be written in Flux: $why")

"The first input, which has to depend on the pictures."
function value(site, i=1)
    x = i <= length(site.arguments) ? site.arguments[i] : nothing
    return x isa Value ? x : cannot(site, "input $i does not depend on the picture")
end

given(site, i) = i <= length(site.arguments) && site.arguments[i] !== nothing

"The code of the `i`th input: a placeholder for a value or an array, or the number itself."
function operand!(site, i)
    x = i <= length(site.arguments) ? site.arguments[i] : nothing
    x isa Value && return read!(site, x.name)
    x isa Array && length(x) == 1 && ndims(x) <= length(site.sizes[1]) && return literal(Float32(first(x)))
    x isa Array && return constant!(site, x)
    x isa Repeated && return string("repeat(", constant!(site, x.array), ", ", join([d == x.d ? "⟦batch⟧" : "1" for d in 1:ndims(x.array)], ", "), ")")
    cannot(site, "input $i is absent, or depends on the number of pictures")
end

function read!(site, name)
    at = findfirst(==(name), site.inputs)
    at === nothing && push!(site.inputs, name)
    return "⟦$(at === nothing ? length(site.inputs) : at)⟧"
end

function constant!(site, array)
    push!(site.constants, Array{Float32}(array))
    return "⟦c$(length(site.constants))⟧"
end

"""
    layer!(site, layer; activation=false)

Add a layer that is called with the first input. `activation` is whether the layer applies the node's activation itself.
"""
function layer!(site, layer::Layer; activation=false)
    add!(site, String[value(site).name], layer, "", Array[], "", activation ? nothing : site.activation)
end

"""
    expression!(site, code, name="")

Add an expression of the operands that [`operand!`](@ref) returned, and then the node's activation.
"""
function expression!(site, code, name=""; output=site.outputs[1])
    add!(site, site.inputs, nothing, code, site.constants, name, output == site.outputs[1] ? site.activation : nothing, output)
    site.inputs, site.constants = String[], Array[]
end

function add!(site, inputs, layer, code, constants, name, activation, output=site.outputs[1])
    if activation === nothing
        push!(site.pieces, Piece(site.op.node, inputs, output, layer, code, constants, name))
    else
        before = output * " before its activation"
        push!(site.pieces, Piece(site.op.node, inputs, before, layer, code, constants, name))
        push!(site.pieces, scalar_piece(site.op.node, before, output, activation))
    end
end

"The functions of NNlib that take an array as well as a number."
const TAKE_ARRAYS = ("relu", "relu6", "sigmoid", "tanh_fast", "softplus", "softsign", "mish", "hardswish", "hardsigmoid",
                     "swish", "selu", "gelu_erf", "gelu_tanh")

scalar_piece(node, input, output, s::Scalar) =
    Piece(node, String[input], output, nothing, as_broadcast(s, "⟦1⟧"), Array[], s.name in TAKE_ARRAYS ? s.name : "")

"Add a piece that applies a function to each number."
scalar!(site, s::Scalar) = push!(site.pieces, scalar_piece(site.op.node, value(site).name, site.outputs[1], s))

"The first output is the first input itself: the piece has no code, and later pieces read the input."
pass!(site) = expression!(site, operand!(site, 1), "identity")
