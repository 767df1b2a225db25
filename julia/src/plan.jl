# The plan: the nodes of a graph that have to be built. Nodes that only pass their input on, or whose output is not used,
# are removed, and activations are fused into the layer before them.

"""
A node to build. `inputs` and `outputs` are names of values, without removed nodes; `outputs` goes up to the last one that
is read and has `"-"` for those that are not. `activation` is the activation node that is fused into it, or `nothing`.
"""
mutable struct PlannedNode
    node::Node
    inputs::Vector{String}
    outputs::Vector{String}
    activation::Union{PlannedNode,Nothing}
end

"""
    make_plan(graph) -> (plan, output)

Return the [`PlannedNode`](@ref)s to build, in execution order, and the name of the value that is the graph's result.
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

"How many times each value is read by nodes that the output depends on. The output itself has one reading more."
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
    fuse_activations(plan, readers, constants) -> plan

Fuse each activation that is the only reader of a layer's output into that layer. The layer applies it in the pass that
adds its bias, which saves one pass through memory.
"""
function fuse_activations(plan, readers, constants)
    producers = Dict{String,Any}()
    kept = PlannedNode[]
    for planned in plan
        producer = is_fusable_activation(planned, constants) && readers[planned.inputs[1]] == 1 ?
            get(producers, planned.inputs[1], nothing) : nothing
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

"Whether a node is an activation with no computed input but the first."
is_fusable_activation(planned, constants) =
    haskey(OPERATORS, planned.node.operator) && OPERATORS[planned.node.operator].scalar !== nothing &&
    all(name -> constant_or_absent(name, constants), planned.inputs[2:end])

"Whether an activation can be fused into the node's layer."
accepts_activation(planned) =
    haskey(OPERATORS, planned.node.operator) && OPERATORS[planned.node.operator].fuses && length(planned.outputs) == 1

constant_or_absent(name, constants) = name == "-" || get(constants, name, nothing) isa Array{Float32}
