# Build a model from a graph and run it. A model is a list of steps that read and write numbered slots, each of which
# holds one value.

using .PlainLayers: WARMED_UP, allocates_output, join_expansions!, lend_arrays, limit_frequencies!, release!, reset_pool_for!, reshapes_input

"""
A chain of layers that runs without storing values in between. Only the first layer may have several inputs, and only
the last one several outputs.

- `layers`: a `Chain` of the backend; `nodes`: the node of each layer, for error messages.
- `inputs`: the slots that the first layer reads.
- `outputs`: the slots that the last layer's outputs go to, with 0 for an output that nothing reads.
- `dead_slots`: the slots that nothing reads after this step.
- `recycled_slots`: those of them whose arrays go back to the buffer pool after this step.
- `recycled_layers`: the layers whose output goes back to the pool when the next layer has read it.
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
A model that is ready to run. `shape` is the input's shape, outermost dimension first, with -1 for any size. `slots` is
the number of slots: the input is in slot 1 and the result in slot `output`. `nodes` is the number of nodes in the graph.
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
    build!(graph, backend) -> Model

Build the model of a graph, whose constants are taken out of it meanwhile: a layer may have its weights in another order,
and large ones must not be in memory twice. Throws [`OperatorError`](@ref) for the first node that cannot be built, and
[`GraphError`](@ref) if nothing computes the output.
"""
function build!(graph::Graph, backend::Backend)
    plan, output = make_plan(graph)
    readers = count_readers(plan, output)
    # Dict{String,Any}, because Julia's system image has compiled code for that type.
    slots = Dict{String,Any}(graph.input => 1)  # value => slot
    last_slot = 1
    producers = Dict{String,Any}()  # value => the step whose last layer computes it
    steps = Step[]
    constant_reads = count_constant_reads(plan)
    bytes = sum(Int[sizeof(x) for x in values(graph.constants)])
    freed, most_garbage = 0, max(LEAST_GARBAGE, bytes ÷ 8)
    limit_frequencies!(bytes)
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
        freed += free_constants!(graph.constants, constant_reads, planned)
        freed >= most_garbage && (freed = 0; GC.gc())
    end
    haskey(slots, output) || throw(GraphError("the output '$output' is not computed"))
    return link_steps(steps, graph.shape, last_slot, slots[output], length(graph.nodes), backend)
end

"""
From so many bytes of freed constants on, and from an eighth of all constants, [`build!`](@ref) collects garbage. Julia
itself would let more pile up.
"""
const LEAST_GARBAGE = 1 << 26

"How many times the nodes of a plan read each value, including the constants of activations."
function count_constant_reads(plan)
    reads = Dict{String,Int}()
    for planned in plan, name in constants_read(planned)
        reads[name] = get(reads, name, 0) + 1
    end
    return reads
end

constants_read(planned) =
    planned.activation === nothing ? planned.inputs : [planned.inputs; planned.activation.inputs[2:end]]

"Remove from `constants` those that `planned` reads and no later node does. Return their size in bytes."
function free_constants!(constants, reads, planned)
    bytes = 0
    for name in constants_read(planned)
        reads[name] -= 1
        reads[name] == 0 && haskey(constants, name) && (bytes += sizeof(pop!(constants, name)))
    end
    return bytes
end

"""
The model of `steps` whose `layers` are vectors of the backend's layers: make chains of them, and note which values nothing
reads any more. The other arguments are those of [`Model`](@ref).
"""
function link_steps(steps, shape, slots, output, nodes, backend)
    if backend.layers === PlainLayers
        for step in steps
            may_prepare(step.layers) && Base.inferencebarrier(prepare_convolutions!)(step.layers, step.nodes)
            join_expansions!(step.layers, step.nodes)
        end
    end
    last_use = Dict{Int,Int}()
    for (i, step) in enumerate(steps), slot in step.inputs
        last_use[slot] = i
    end
    # Only the plain layers take their output arrays from the buffer pool.
    recyclable = backend.layers === PlainLayers ? find_recyclable!(steps, last_use, output) : Set{Int}()
    for (slot, i) in last_use
        slot == output && continue
        push!(steps[i].dead_slots, slot)
        slot in recyclable && push!(steps[i].recycled_slots, slot)
    end
    chained = Step[Step(backend.layers.Chain(s.layers), s.nodes, s.inputs, s.outputs, s.dead_slots, s.recycled_slots,
                        s.recycled_layers) for s in steps]
    return Model(shape, chained, slots, output, nodes, backend.device)
end

"Whether [`prepare_convolutions!`](@ref), which few models need and all would have to compile, may change the `layers` of a step."
function may_prepare(layers)
    for layer in layers
        layer isa PlainLayers.BatchNorm && return true
    end
    return layers[1] isa Elementwise{typeof(*)}
end

"""
    find_recyclable!(steps, last_use, output) -> Set{Int}

Return the slots whose array comes from the buffer pool and is in no other slot that is still read. Note the layers within
a step for whose output the same holds in its `recycled_layers`. `last_use` has the number of the last step that reads a
slot, and `output` is the slot of the model's output. A layer that only reshapes its input passes it on, if nothing else
reads that.
"""
function find_recyclable!(steps, last_use, output)
    recyclable = Set{Int}()
    for (i, step) in enumerate(steps)
        is_owned = allocates_output(step.layers[1])
        if !is_owned
            input = step.inputs[1]
            is_owned = reshapes_input(step.layers[1]) && input in recyclable && input != output &&
                last_use[input] == i && count(==(input), step.inputs) == 1
            setdiff!(recyclable, step.inputs)
        end
        for k in 2:length(step.layers)
            if allocates_output(step.layers[k])
                is_owned && push!(step.recycled_layers, k - 1)
                is_owned = true
            else
                is_owned &= reshapes_input(step.layers[k])
            end
        end
        is_owned && union!(recyclable, step.outputs)
    end
    return recyclable
end

"Build the layer of one planned node from the modules `L` and `OnnxLayers`. Throws [`OperatorError`](@ref)."
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

"A layer whose weights are computed by the graph. It builds the operator's layer anew in each call."
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

"The scalar function of an activation node that is fused into the layer before it."
function activation_of(planned::PlannedNode, graph, slots, L)
    inputs = pushfirst!(inputs_of(planned, graph, slots, 2), COMPUTED)
    return build_or_refuse(OPERATORS[planned.node.operator].scalar, NodeContext(planned.node, inputs, L, nothing, 1))
end

"Return `build(op)`. Whatever it throws becomes an [`OperatorError`](@ref) with the node's name."
function build_or_refuse(@nospecialize(build), op::NodeContext)
    try
        return build(op)
    catch e
        e isa Union{OperatorError,OutOfMemoryError,InterruptException} && rethrow()
        refuse(op, reason(e))
    end
end

"The inputs of a node from number `first` on, as [`NodeContext`](@ref) has them."
inputs_of(planned, graph, slots, first=1) = Any[input_of(planned.node, name, graph, slots) for name in planned.inputs[first:end]]

function input_of(node, name, graph, slots)
    name == "-" && return nothing
    haskey(slots, name) && return COMPUTED
    haskey(graph.constants, name) && return graph.constants[name]
    refuse(node, "it reads '$name', which nothing computes")
end

"""
    predict(model, x::Array{Float32}) -> Array{Float32}

Run the forward pass. `x` has the graph input's dimensions reversed, (W, H, C, N) for a picture; so has the result.

Throws [`InputError`](@ref) if the shape of `x` does not fit, and [`ComputeError`](@ref) with the node's name if a layer
fails. One thread at a time may call this: the plain layers share their buffers.
"""
function predict(model::Model, x::Array{Float32})
    check_input(model, x)
    reset_pool_for!(size(x))
    return lend_arrays(() -> run_steps(model, x))
end

"The steps of `model` on `x`. The result may be an array that [`lend_arrays`](@ref) lent."
function run_steps(model, x)
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
    # Not while precompiling: a package's cache file cannot hold the helper tasks that the thread pool would start.
    WARMED_UP[] = !precompiling()
    y = model.device.to_cpu(values[model.output])
    return y isa Array{Float32} ? y : Array{Float32}(y)
end

"Run the layers of a step on its inputs. Throws [`ComputeError`](@ref) with the name of the node that failed."
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

"Throw [`InputError`](@ref) unless the model takes `x`."
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
