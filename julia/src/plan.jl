# The graph made simpler before it is built: nothing stays of operators that hand on what they get, and
# an activation moves into the layer before it.

"A node, the values it reads and makes once others are gone, and the operator of the activation it takes in."
mutable struct Planned
    node::Node
    inputs::Vector{String}
    output::String
    activation::Union{String,Nothing}
end

"""
    plan_of(graph) -> (plan, output)

The nodes to build, in order, and the name of the value that is the answer.
"""
function plan_of(graph::Graph)
    renamed = Dict{String,String}()
    original(name) = get(renamed, name, name)
    plan = Planned[]
    for node in graph.nodes
        inputs = map(original, node.inputs)
        if node.operator in PASSES && !isempty(inputs)
            renamed[node.outputs[1]] = inputs[1]
        else
            push!(plan, Planned(node, inputs, node.outputs[1], nothing))
        end
    end
    output = original(graph.output)
    return fuse(plan, count_readers(plan, output)), output
end

"How often each value is read; to be the answer counts as one reading."
function count_readers(plan, output)
    readers = Dict{String,Int}(output => 1)
    for item in plan, name in item.inputs
        readers[name] = get(readers, name, 0) + 1
    end
    return readers
end

"""
Give each activation that is the only reader of a layer's output to this layer, which applies it in
the pass that adds its bias: that saves a walk through memory.
"""
function fuse(plan, readers)
    makers = Dict{String,Planned}()
    return filter(plan) do item
        operator = item.node.operator
        if haskey(ACTIVATIONS, operator) && length(item.inputs) == 1
            maker = get(makers, item.inputs[1], nothing)
            if maker !== nothing && readers[maker.output] == 1
                delete!(makers, maker.output)
                maker.activation = operator
                maker.output = item.output
                return false
            end
        end
        if haskey(OPERATORS, operator) && OPERATORS[operator].fuses
            makers[item.output] = item
        end
        return true
    end
end
