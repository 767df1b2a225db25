# The graph made simpler before it is built: nothing stays of operators that hand on what they get, and
# an activation moves into the layer before it.

"""
A node, the values it reads and makes once others are gone (up to the last that is read, `"-"` those that
nothing reads), and the activation it takes in.
"""
mutable struct PlannedNode
    node::Node
    inputs::Vector{String}
    outputs::Vector{String}
    activation::Union{PlannedNode,Nothing}
end

"""
    plan_of(graph) -> (plan, output)

The nodes to build, in order, and the name of the value that is the answer. Nodes that it does not depend
on are left out.
"""
function make_plan(graph::Graph)
    readers = count_readers(graph.nodes, graph.output)
    renamed = Dict{String,String}()
    original(name) = get(renamed, name, name)
    plan = PlannedNode[]
    for node in graph.nodes
        last_read = findlast(name -> haskey(readers, name), node.outputs)
        last_read === nothing && continue
        inputs = map(original, node.inputs)
        if node.operator in PASS_THROUGH && last_read == 1 && !isempty(inputs)
            renamed[node.outputs[1]] = inputs[1]
        else
            outputs = String[haskey(readers, name) ? name : "-" for name in node.outputs[1:last_read]]
            push!(plan, PlannedNode(node, inputs, outputs, nothing))
        end
    end
    output = original(graph.output)
    return fuse_activations(plan, count_readers(plan, output), graph.constants), output
end

"How often each value is read by what the answer depends on; to be the answer counts as one reading."
function count_readers(nodes, output)
    readers = Dict{String,Int}(output => 1)
    for node in Iterators.reverse(nodes)
        any(name -> haskey(readers, name), node.outputs) || continue
        for name in node.inputs
            name == "-" || (readers[name] = get(readers, name, 0) + 1)
        end
    end
    return readers
end

"""
Give each activation that is the only reader of a layer's output to this layer, which applies it in
the pass that adds its bias: that saves a walk through memory.
"""
function fuse_activations(plan, readers, constants)
    producers = Dict{String,Any}()
    kept = PlannedNode[]
    for planned in plan
        producer = is_fusable_activation(planned, constants) && readers[planned.inputs[1]] == 1 ? get(producers, planned.inputs[1], nothing) : nothing
        if producer === nothing
            push!(kept, planned)
            accepts_activation(planned) && (producers[planned.outputs[1]] = planned)
        else
            delete!(producers, planned.inputs[1])
            producer.activation = planned
            producer.outputs = planned.outputs
        end
    end
    return kept
end

"Whether it is a function of each number of its first input, with nothing else that is computed."
is_fusable_activation(planned, constants) = haskey(OPERATORS, planned.node.operator) && OPERATORS[planned.node.operator].scalar !== nothing &&
    all(name -> constant_or_absent(name, constants), planned.inputs[2:end])

accepts_activation(planned) = haskey(OPERATORS, planned.node.operator) && OPERATORS[planned.node.operator].fuses && length(planned.outputs) == 1

constant_or_absent(name, constants) = name == "-" || get(constants, name, nothing) isa Array{Float32}
