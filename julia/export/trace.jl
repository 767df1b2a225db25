# The model is run on two batches of different size, to learn the size of each value and what depends on the pictures.

"The sizes of the two batches that a graph is traced with."
const BATCHES = (2, 3)

"""
What is known of a graph's values, by name. `sizes` has for each value its size in both batches, in Julia's order.
`fixed` has for each value that does not depend on the pictures, only on their number, its two arrays.
"""
struct Trace
    sizes::Dict{String,NTuple{2,Vector{Int}}}
    fixed::Dict{String,NTuple{2,Any}}
end

"""
    trace(graph, plan, shape) -> Trace

Run the `plan` of a graph on random pictures of `shape`, outermost dimension first and without the batch. Throws
`OperatorError` with the node's name if one cannot be run.
"""
function trace(graph::Graph, plan, shape)
    fits = length(graph.shape) == length(shape) + 1 && all(i -> graph.shape[i+1] in (-1, shape[i]), 1:length(shape))
    fits || throw(GraphError("the model takes a tensor of shape $(shape_text(graph.shape)), not pictures of $(shape_text(collect(shape)))"))
    graph.shape[1] == -1 ||
        throw(GraphError("the model takes exactly $(graph.shape[1]) pictures at once, and a Flux model has to take any number"))
    slots = Dict{String,Any}(graph.input => 1)
    foreach(planned -> foreach(name -> slots[name] = 1, planned.outputs), plan)
    pictures = Set([graph.input])  # the values that depend on the pictures
    first, second = (run_plan(graph, plan, slots, shape, batch, pictures) for batch in BATCHES)
    sizes = Dict(name => (value_size(first[name]), value_size(second[name])) for name in keys(first))
    fixed = Dict{String,NTuple{2,Any}}(name => (first[name], second[name]) for name in keys(first) if !(name in pictures))
    return Trace(sizes, fixed)
end

value_size(x::AbstractArray) = collect(Int, size(x))
value_size(sizes::Vector{Int}) = sizes

"""
The values of a run, by name: arrays, or their sizes for those in `pictures`, which this completes. All of a batch's
arrays would take too much memory.
"""
function run_plan(graph, plan, slots, shape, batch, pictures)
    values = Dict{String,Any}(graph.input => randn(Float32, reverse(shape)..., batch))
    for planned in plan
        layer = build_layer(planned, graph, slots, PlainLayers)
        names = String[name for name in planned.inputs if haskey(slots, name)]
        outputs = try
            layer([values[name] for name in names]...)
        catch e
            e isa InterruptException && rethrow()
            refuse(planned.node, reason(e))
        end
        depends = any(in(pictures), names) && !(planned.node.operator in ("Shape", "Size"))
        for (name, value) in zip(planned.outputs, outputs isa Tuple ? outputs : (outputs,))
            name == "-" && continue
            values[name] = value
            depends && push!(pictures, name)
        end
    end
    return Dict{String,Any}(name => name in pictures ? value_size(value) : value for (name, value) in values)
end
