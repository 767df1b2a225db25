# A graph becomes a model: a list of steps over slots that hold the values in flight.

using .PlainLayers: WARMED_UP, reset_pool_for!, allocates_output, release!

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
    dead_slots::Vector{Int}
    recycled_slots::Vector{Int}
    recycled_layers::Vector{Int}
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
    plan, output = make_plan(graph)
    readers = count_readers(plan, output)
    # Any, as Julia brings compiled code for such a dictionary along.
    slots = Dict{String,Any}(graph.input => 1)  # value => slot
    last_slot = 1
    producers = Dict{String,Any}()  # value => the step that ends with it
    steps = Step[]
    for planned in plan
        layer = place_on_device(build_layer(planned, graph, slots, backend.layers), backend.device)
        computed = String[name for name in planned.inputs if haskey(slots, name)]
        if length(computed) == 1 && readers[computed[1]] == 1 && haskey(producers, computed[1])
            step = producers[computed[1]]
        else
            step = Step([], Node[], Int[slots[name] for name in computed], Int[], Int[], Int[], Int[])
            push!(steps, step)
        end
        push!(step.layers, layer)
        push!(step.nodes, planned.node)
        empty!(step.outputs)
        for name in planned.outputs
            push!(step.outputs, name == "-" ? 0 : (slots[name] = last_slot += 1))
        end
        length(planned.outputs) == 1 && (producers[planned.outputs[1]] = step)
    end
    haskey(slots, output) || throw(GraphError("the output '$output' is not computed"))
    # Flux keeps its own house.
    recyclable = backend.layers === PlainLayers ? find_recyclable!(steps) : Set{Int}()
    last_use = Dict{Int,Int}()
    for (i, step) in enumerate(steps), slot in step.inputs
        last_use[slot] = i
    end
    for (slot, i) in last_use
        slot == slots[output] && continue
        push!(steps[i].dead_slots, slot)
        slot in recyclable && push!(steps[i].recycled_slots, slot)
    end
    chained = Step[Step(backend.layers.Chain(s.layers), s.nodes, s.inputs, s.outputs, s.dead_slots, s.recycled_slots, s.recycled_layers) for s in steps]
    return Model(graph.shape, chained, last_slot, slots[output], length(graph.nodes), backend.device)
end

"The slots whose arrays are no part of any other value; such layers in a step are noted as `passing`."
function find_recyclable!(steps)
    recyclable = Set{Int}()
    for step in steps
        for i in 1:length(step.layers)-1
            allocates_output(step.layers[i]) && allocates_output(step.layers[i+1]) && push!(step.recycled_layers, i)
        end
        allocates_output(step.layers[1]) || setdiff!(recyclable, step.inputs)
        allocates_output(step.layers[end]) && union!(recyclable, step.outputs)
    end
    return recyclable
end

"The layer of one item of the plan."
function build_layer(planned::PlannedNode, graph, slots, L)
    node = planned.node
    haskey(OPERATORS, node.operator) || refuse(node, "the worker has no operator $(node.operator)")
    operator = OPERATORS[node.operator]
    inputs = inputs_of(planned, graph, slots)
    any(input -> input === COMPUTED, inputs) ||
        refuse(node, "none of its inputs is computed: the compiler should have made it a constant")
    outputs = length(planned.outputs)
    outputs == 1 || operator.any_output || refuse(node, "output $outputs is read, and the worker computes only the first")
    activation = planned.activation === nothing ? nothing : activation_of(planned.activation, graph, slots, L)
    op = NodeContext(node, inputs, L, activation, outputs)
    is_dynamic = !operator.any_input && (inputs[1] !== COMPUTED || COMPUTED in inputs[2:end])
    return is_dynamic ? DynamicWeights(op, operator.build) : build_or_refuse(operator.build, op)
end

"A layer whose weights are computed: it is built for each call."
struct DynamicWeights
    op::NodeContext
    build::Function
end

(b::DynamicWeights)(xs...) = Bound((inputs...) -> call_with_weights(b, inputs), b.op.inputs)(xs...)

function call_with_weights(b, inputs)
    weights = Any[COMPUTED, inputs[2:end]...]
    return b.build(NodeContext(b.op.node, weights, b.op.L, b.op.activation, b.op.outputs))(inputs[1])
end

Base.show(io::IO, b::DynamicWeights) = print(io, "DynamicWeights(", b.op.node.operator, ")")

function activation_of(planned::PlannedNode, graph, slots, L)
    inputs = pushfirst!(inputs_of(planned, graph, slots, 2), COMPUTED)
    return build_or_refuse(OPERATORS[planned.node.operator].scalar, NodeContext(planned.node, inputs, L, nothing, 1))
end

"`build(op)`; what it throws becomes the refusal of the node."
function build_or_refuse(@nospecialize(build), op::NodeContext)
    try
        return build(op)
    catch e
        e isa Union{OperatorError,OutOfMemoryError,InterruptException} && rethrow()
        refuse(op, reason(e))
    end
end

"What a builder sees of the inputs from the `first` on."
inputs_of(planned, graph, slots, first=1) = Any[input_of(planned.node, name, graph, slots) for name in planned.inputs[first:end]]

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
    check_input(model, x)
    reset_pool_for!(size(x))
    values = Vector{Any}(nothing, model.slots)
    values[1] = model.device.to_device(x)
    for step in model.steps
        y = run_step(step, [values[i] for i in step.inputs])
        if length(step.outputs) == 1
            values[step.outputs[1]] = y
        else
            for (slot, value) in zip(step.outputs, y)
                slot == 0 || (values[slot] = value)
            end
        end
        for slot in step.recycled_slots
            release!(values[slot])
        end
        for slot in step.dead_slots
            values[slot] = nothing
        end
    end
    # A package's cache cannot hold the tasks of other threads.
    WARMED_UP[] = !precompiling()
    y = model.device.to_cpu(values[model.output])
    return y isa Array{Float32} ? y : Array{Float32}(y)
end

function run_step(step, inputs)
    i = 1
    try
        y = step.layers[1](inputs...)
        while i < length(step.layers)
            i += 1
            x, y = y, step.layers[i](y)
            i - 1 in step.recycled_layers && release!(x)
        end
        return y
    catch e
        e isa InterruptException && rethrow()
        throw(ComputeError("$(label(step.nodes[i])): $(reason(e))"))
    end
end

function check_input(model, x)
    shape = row_major_shape(x)
    fits = length(shape) == length(model.shape) && all(i -> model.shape[i] in (-1, shape[i]), 1:length(shape))
    fits || throw(InputError("the model takes a tensor of shape $(shape_text(model.shape)) (-1 is free), not $(shape_text(shape))"))
    isempty(x) && !(0 in model.shape) && throw(InputError("the tensor of shape $(shape_text(shape)) has no elements"))
    return nothing
end

slot_name(slot) = slot == 0 ? "-" : "v$slot"

function Base.show(io::IO, model::Model)
    println(io, "Model of ", shape_text(model.shape), " (-1 is free), v1, to v", model.output, ":")
    for step in model.steps
        println(io, "  ", join(map(slot_name, step.outputs), ", "), " = ", join(map(slot_name, step.inputs), ", "))
        for i in 1:length(step.layers)
            println(io, "    |> ", step.layers[i])
        end
    end
end
