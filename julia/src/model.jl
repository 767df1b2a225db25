# A graph becomes a model: a list of steps over slots that hold the values in flight.

using .PlainLayers: COMPILED, keep_spares_for!, makes_new, spare!

"""
A run of layers of which only the first may take several inputs, and only the last make several outputs (a
tuple): `layers` is a Chain of the backend. `nodes` has the node of each layer, `outputs` the slots of what the
last one makes (0 for what nothing reads); `release` are the slots that nothing reads after this step, `spares` those of
them whose arrays can be used again. So can those that the layers `passing` make for the next one.
"""
struct Step
    layers
    nodes::Vector{Node}
    inputs::Vector{Int}
    outputs::Vector{Int}
    release::Vector{Int}
    spares::Vector{Int}
    passing::Vector{Int}
end

"""
A model that is ready to run. `shape` is the input's, outermost first, with -1 where it is free; a value
lives in one of `slots` slots of the `device`, the input in slot 1 and the answer in slot `output`.
"""
struct Model
    shape::Vector{Int}
    steps::Vector{Step}
    slots::Int
    output::Int
    nodes::Int
    device::Device
end

"""
    build(graph, backend) -> Model

Throws [`OperatorError`](@ref) for the first node that cannot be built.
"""
function build(graph::Graph, backend::Backend)
    plan, output = plan_of(graph)
    readers = count_readers(plan, output)
    # Any, as Julia brings compiled code for such a dictionary along.
    slots = Dict{String,Any}(graph.input => 1)  # value => slot
    last_slot = 1
    makers = Dict{String,Any}()  # value => the step that ends with it
    steps = Step[]
    for item in plan
        layer = placed(layer_of(item, graph, slots, backend.layers), backend.device)
        computed = String[name for name in item.inputs if haskey(slots, name)]
        if length(computed) == 1 && readers[computed[1]] == 1 && haskey(makers, computed[1])
            step = makers[computed[1]]
        else
            step = Step([], Node[], Int[slots[name] for name in computed], Int[], Int[], Int[], Int[])
            push!(steps, step)
        end
        push!(step.layers, layer)
        push!(step.nodes, item.node)
        empty!(step.outputs)
        for name in item.outputs
            push!(step.outputs, name == "-" ? 0 : (slots[name] = last_slot += 1))
        end
        length(item.outputs) == 1 && (makers[item.outputs[1]] = step)
    end
    haskey(slots, output) || throw(GraphError("the output '$output' is not computed"))
    # Flux keeps its own house.
    own = backend.layers === PlainLayers ? find_own!(steps) : Set{Int}()
    last_use = Dict{Int,Int}()
    for (i, step) in enumerate(steps), slot in step.inputs
        last_use[slot] = i
    end
    for (slot, i) in last_use
        slot == slots[output] && continue
        push!(steps[i].release, slot)
        slot in own && push!(steps[i].spares, slot)
    end
    chained = Step[Step(backend.layers.Chain(s.layers), s.nodes, s.inputs, s.outputs, s.release, s.spares, s.passing) for s in steps]
    return Model(graph.shape, chained, last_slot, slots[output], length(graph.nodes), backend.device)
end

"The slots whose arrays are no part of any other value; such layers in a step are noted as `passing`."
function find_own!(steps)
    own = Set{Int}()
    for step in steps
        for i in 1:length(step.layers)-1
            makes_new(step.layers[i]) && makes_new(step.layers[i+1]) && push!(step.passing, i)
        end
        makes_new(step.layers[1]) || setdiff!(own, step.inputs)
        makes_new(step.layers[end]) && union!(own, step.outputs)
    end
    return own
end

"The layer of one item of the plan."
function layer_of(item::Planned, graph, slots, L)
    node = item.node
    haskey(OPERATORS, node.operator) || refuse(node, "the worker has no operator $(node.operator)")
    operator = OPERATORS[node.operator]
    inputs = inputs_of(item, graph, slots)
    any(input -> input === COMPUTED, inputs) ||
        refuse(node, "none of its inputs is computed: the compiler should have made it a constant")
    outputs = length(item.outputs)
    outputs == 1 || operator.any_output || refuse(node, "output $outputs is read, and the worker computes only the first")
    activation = item.activation === nothing ? nothing : activation_of(item.activation, graph, slots, L)
    op = Operation(node, inputs, L, activation, outputs)
    is_late = !operator.any_input && (inputs[1] !== COMPUTED || COMPUTED in inputs[2:end])
    return is_late ? BuiltLate(op, operator.build) : attempt(operator.build, op)
end

"A layer whose weights are computed: it is built for each call."
struct BuiltLate
    op::Operation
    build::Function
end

(b::BuiltLate)(xs...) = Bound((inputs...) -> called(b, inputs), b.op.inputs)(xs...)

function called(b, inputs)
    weights = Any[COMPUTED, inputs[2:end]...]
    return b.build(Operation(b.op.node, weights, b.op.L, b.op.activation, b.op.outputs))(inputs[1])
end

Base.show(io::IO, b::BuiltLate) = print(io, "BuiltLate(", b.op.node.operator, ")")

function activation_of(item::Planned, graph, slots, L)
    inputs = pushfirst!(inputs_of(item, graph, slots, 2), COMPUTED)
    return attempt(OPERATORS[item.node.operator].number, Operation(item.node, inputs, L, nothing, 1))
end

"`build(op)`; what it throws becomes the refusal of the node."
function attempt(@nospecialize(build), op::Operation)
    try
        return build(op)
    catch e
        e isa Union{OperatorError,OutOfMemoryError,InterruptException} && rethrow()
        refuse(op, reason(e))
    end
end

"What a builder sees of the inputs from the `first` on."
inputs_of(item, graph, slots, first=1) = Any[input_of(item.node, name, graph, slots) for name in item.inputs[first:end]]

function input_of(node, name, graph, slots)
    name == "-" && return nothing
    haskey(slots, name) && return COMPUTED
    haskey(graph.constants, name) && return graph.constants[name]
    refuse(node, "it reads '$name', which nothing computes")
end

"""
    predict(model, x::Array{Float32}) -> Array{Float32}

`x` has the dimensions of the graph's input reversed, and so has the answer. Throws [`InputError`](@ref) where
`x` does not fit and [`ComputeError`](@ref), with the node's name, where a layer fails.
"""
function predict(model::Model, x::Array{Float32})
    check(model, x)
    keep_spares_for!(size(x))
    values = Vector{Any}(nothing, model.slots)
    values[1] = model.device.to(x)
    for step in model.steps
        y = run_step(step, [values[i] for i in step.inputs])
        if length(step.outputs) == 1
            values[step.outputs[1]] = y
        else
            for (slot, value) in zip(step.outputs, y)
                slot == 0 || (values[slot] = value)
            end
        end
        for slot in step.spares
            spare!(values[slot])
        end
        for slot in step.release
            values[slot] = nothing
        end
    end
    # A package's cache cannot hold the tasks of other threads.
    COMPILED[] = !precompiling()
    y = model.device.back(values[model.output])
    return y isa Array{Float32} ? y : Array{Float32}(y)
end

function run_step(step, inputs)
    i = 1
    try
        y = step.layers[1](inputs...)
        while i < length(step.layers)
            i += 1
            x, y = y, step.layers[i](y)
            i - 1 in step.passing && spare!(x)
        end
        return y
    catch e
        e isa InterruptException && rethrow()
        throw(ComputeError("$(label(step.nodes[i])): $(reason(e))"))
    end
end

function check(model, x)
    shape = outer_shape(x)
    fits = length(shape) == length(model.shape) && all(i -> model.shape[i] in (-1, shape[i]), 1:length(shape))
    fits || throw(InputError("the model takes a tensor of shape $(words(model.shape)) (-1 is free), not $(words(shape))"))
    isempty(x) && !(0 in model.shape) && throw(InputError("the tensor of shape $(words(shape)) has no elements"))
    return nothing
end

value(slot) = slot == 0 ? "-" : "v$slot"

function Base.show(io::IO, model::Model)
    println(io, "Model of ", words(model.shape), " (-1 is free), v1, to v", model.output, ":")
    for step in model.steps
        println(io, "  ", join(map(value, step.outputs), ", "), " = ", join(map(value, step.inputs), ", "))
        for i in 1:length(step.layers)
            println(io, "    |> ", step.layers[i])
        end
    end
end
