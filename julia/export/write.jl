# From the plan of a graph to the pieces of its model.

"""
    write_pieces(graph, shape) -> (pieces, input, output)

The [`Piece`](@ref)s that compute the graph's output, in order of execution, and the names of the input and of the output.
Throws `OperatorError` for the first node that cannot be written.
"""
function write_pieces(graph::Graph, shape)
    plan, output = make_plan(graph)
    found = trace(graph, plan, shape)
    haskey(found.fixed, output) && throw(GraphError("the output does not depend on the picture"))
    pieces, renamed = Piece[], Dict{String,String}()
    for planned in needed(merge_biases(plan, output, graph.constants), output, found)
        for piece in write_node(planned, graph, found, renamed)
            if piece.layer === nothing && piece.name == "identity"
                renamed[piece.output] = piece.inputs[1]
            else
                push!(pieces, piece)
            end
        end
    end
    return pieces, graph.input, get(renamed, output, output)
end

"The planned nodes whose outputs depend on the pictures, and on which the output depends through more than sizes."
function needed(plan, output, found)
    read, kept = Set([output]), PlannedNode[]
    for planned in Iterators.reverse(plan)
        any(in(read), planned.outputs) && any(name -> name != "-" && !haskey(found.fixed, name), planned.outputs) || continue
        pushfirst!(kept, planned)
        shaping = planned.node.operator in ("Reshape", "Expand", "Tile", "Resize", "Squeeze", "Unsqueeze", "Upsample")
        union!(read, shaping ? planned.inputs[1:1] : planned.inputs)
    end
    return kept
end

"The plan with each Add of a vector to a MatMul as a third input of that MatMul: together they are a Dense."
function merge_biases(plan, output, constants)
    readers, merged, products = count_readers(plan, output), PlannedNode[], Dict{String,PlannedNode}()
    for planned in plan
        product, bias = bias_of(planned, products, constants)
        if product !== nothing && readers[product.outputs[1]] == 1
            push!(product.inputs, bias)
            product.outputs, product.activation = planned.outputs, planned.activation
            continue
        end
        copied = PlannedNode(planned.node, copy(planned.inputs), planned.outputs, planned.activation)
        push!(merged, copied)
        weight = planned.node.operator == "MatMul" ? get(constants, planned.inputs[2], nothing) : nothing
        weight isa Matrix && planned.activation === nothing && (products[planned.outputs[1]] = copied)
    end
    return merged
end

"The MatMul and the name of the vector that an Add adds, or `(nothing, \"\")`."
function bias_of(planned, products, constants)
    planned.node.operator == "Add" || return nothing, ""
    for (a, b) in (planned.inputs, reverse(planned.inputs))
        bias = get(constants, b, nothing)
        haskey(products, a) && bias isa Vector{Float32} && length(bias) == size(constants[products[a].inputs[2]], 1) &&
            return products[a], b
    end
    return nothing, ""
end

"The pieces of one node."
function write_node(planned, graph, found, renamed)
    node = planned.node
    haskey(WRITERS, node.operator) || refuse(node, "Flux has no layer or function for it")
    arguments = Any[argument_of(name, graph, found, renamed) for name in planned.inputs]
    op = context(planned, arguments)
    activation = planned.activation === nothing ? nothing : activation_scalar(planned.activation, graph)
    node.operator == "Split" || length(planned.outputs) == 1 || refuse(node, "Flux computes only its first output")
    first_output = planned.outputs[something(findfirst(!=("-"), planned.outputs))]
    site = Site(op, arguments, planned.outputs, found.sizes[first_output], activation)
    WRITERS[node.operator](site)
    return site.pieces
end

"The function of an activation that is fused into another node. Its inputs after the first are constants."
function activation_scalar(planned, graph)
    op = context(planned, Any[missing; [name == "-" ? nothing : graph.constants[name] for name in planned.inputs[2:end]]])
    haskey(SCALARS, op.node.operator) || refuse(op, "Flux has no layer or function for it")
    return SCALARS[op.node.operator](op)
end

"What builders of layers know of a node: its attributes and constants."
context(planned, arguments) = NodeContext(planned.node, Any[x isa AbstractArray || x === nothing ? x : COMPUTED for x in arguments],
                                          PlainLayers, nothing, length(planned.outputs))

"An input of a node, as [`Site`](@ref) has it."
function argument_of(name, graph, found, renamed)
    name == "-" && return nothing
    haskey(graph.constants, name) && return graph.constants[name]
    haskey(found.fixed, name) || return Value(get(renamed, name, name), found.sizes[name])
    first, second = found.fixed[name]
    isequal(first, second) && return first
    return repeated(first, second)
end

"The [`Repeated`](@ref) array that two arrays for two numbers of pictures are, or else both of them as [`Unequal`](@ref)."
function repeated(first, second)
    ndims(first) == ndims(second) || return Unequal((first, second))
    growing = findall(collect(size(first)) .!= collect(size(second)))
    length(growing) == 1 || return Unequal((first, second))
    d = growing[1]
    n = size(second, d) - size(first, d)
    size(first, d) == n * BATCHES[1] && size(second, d) == n * BATCHES[2] || return Unequal((first, second))
    one = collect(selectdim(first, d, 1:n))
    times(count) = ntuple(k -> k == d ? count : 1, ndims(first))
    return isequal(repeat(one, times(BATCHES[1])...), first) && isequal(repeat(one, times(BATCHES[2])...), second) ?
        Repeated(one, d) : Unequal((first, second))
end
