# A graph becomes a model: a list of steps over slots that hold the values in flight.

"""
A run of layers of which only the first may take several inputs: `layers` is a Chain of the backend.
`nodes` has the node of each layer; `release` are the slots that nothing reads after this step.
"""
struct Step
    layers
    nodes::Vector{Node}
    inputs::Vector{Int}
    output::Int
    release::Vector{Int}
end

"""
A model that is ready to run. `shape` is the input's, outermost first, with -1 where it is free; a value
lives in one of `slots` slots, the input in slot 1 and the answer in slot `output`.
"""
struct Model
    shape::Vector{Int}
    steps::Vector{Step}
    slots::Int
    output::Int
    nodes::Int
end

"""
    build(graph, backend) -> Model

Throws [`OperatorError`](@ref) for the first node that cannot be built.
"""
function build(graph::Graph, backend::Backend)
    plan, output = plan_of(graph)
    readers = count_readers(plan, output)
    slots = Dict(graph.input => 1)    # value => slot
    makers = Dict{String,Step}()      # value => the step that ends with it
    steps = Step[]
    for item in plan
        layer = layer_of(item, graph, slots, backend.layers)
        computed = String[name for name in item.inputs if haskey(slots, name)]
        if length(computed) == 1 && readers[computed[1]] == 1 && haskey(makers, computed[1])
            step = makers[computed[1]]
        else
            step = Step([], Node[], Int[slots[name] for name in computed], length(steps) + 2, Int[])
            push!(steps, step)
        end
        push!(step.layers, layer)
        push!(step.nodes, item.node)
        slots[item.output] = step.output
        makers[item.output] = step
    end
    haskey(slots, output) || throw(GraphError("the output '$output' is not computed"))
    last_use = Dict{Int,Int}()
    for (i, step) in enumerate(steps), slot in step.inputs
        last_use[slot] = i
    end
    for (slot, i) in last_use
        slot == slots[output] || push!(steps[i].release, slot)
    end
    chained = Step[Step(backend.layers.Chain(s.layers), s.nodes, s.inputs, s.output, s.release) for s in steps]
    return Model(graph.shape, chained, length(steps) + 1, slots[output], length(graph.nodes))
end

"The layer of one item of the plan."
function layer_of(item::Planned, graph, slots, L)
    node = item.node
    haskey(OPERATORS, node.operator) || refuse(node, "the worker has no operator $(node.operator)")
    operator = OPERATORS[node.operator]
    inputs = Any[input_of(node, name, graph, slots) for name in item.inputs]
    any(input -> input === COMPUTED, inputs) ||
        refuse(node, "none of its inputs is computed: the compiler should have made it a constant")
    if !operator.any_input
        inputs[1] === COMPUTED || refuse(node, "input 1 has to be computed")
        computed = findnext(input -> input === COMPUTED, inputs, 2)
        computed === nothing || refuse(node, "input $computed has to be a constant")
    end
    activation = item.activation === nothing ? nothing : getfield(L, ACTIVATIONS[item.activation])
    try
        return operator.build(Operation(node, inputs, L, activation))
    catch e
        e isa Union{OperatorError,OutOfMemoryError,InterruptException} && rethrow()
        refuse(node, reason(e))
    end
end

"What a builder sees of an input."
function input_of(node, name, graph, slots)
    name == "-" && return nothing
    haskey(slots, name) && return COMPUTED
    haskey(graph.constants, name) && return graph.constants[name]
    refuse(node, "it reads '$name', which is not a node's first output: the worker computes no others")
end

"""
    predict(model, x::Array{Float32}) -> Array{Float32}

`x` has the dimensions of the graph's input reversed, and so has the answer. Throws [`InputError`](@ref) where
`x` does not fit and [`ComputeError`](@ref), with the node's name, where a layer fails.
"""
function predict(model::Model, x::Array{Float32})
    check(model, x)
    values = Vector{Any}(nothing, model.slots)
    values[1] = x
    for step in model.steps
        values[step.output] = run_step(step, [values[i] for i in step.inputs])
        for slot in step.release
            values[slot] = nothing
        end
    end
    y = values[model.output]
    return y isa Array{Float32} ? y : Array{Float32}(y)
end

function run_step(step, inputs)
    i = 1
    try
        y = step.layers[1](inputs...)
        while i < length(step.layers)
            i += 1
            y = step.layers[i](y)
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
    isempty(x) && throw(InputError("the tensor of shape $(words(shape)) has no elements"))
    return nothing
end

function Base.show(io::IO, model::Model)
    println(io, "Model of ", words(model.shape), " (-1 is free), v1, to v", model.output, ":")
    for step in model.steps
        println(io, "  v", step.output, " = ", join(("v$i" for i in step.inputs), ", "))
        for i in 1:length(step.layers)
            println(io, "    |> ", step.layers[i])
        end
    end
end
