"""
Write a graph as Julia code that needs Flux alone: a native Flux bundle (docs/models.md).

    text, weights = flux_code(read_graph("model.graph"), (3, 224, 224))
    write("flux_model.jl", text)

The graph is run on two batches first ([`trace`](@ref)), so that the code has the sizes that the model computes from its
input's size. Each of its nodes becomes a [`Piece`](@ref), and the pieces become a `Chain` if they are one, else a struct
with named layers and a function with one line a node. Needs no Flux; [`save_weights`](@ref) does.
"""
module FluxExport

using ..FluxdropWorker
using ..FluxdropWorker: COMPUTED, Graph, GraphError, Node, NodeContext, OnnxLayers, PlainLayers, PlannedNode,
    UsageError, build_layer, constant, count_readers, float, int, ints, label, make_plan, optional_constant, pads, reason, refuse,
    shape_text, spatial, text, window_options
using ..FluxdropWorker.OnnxLayers: dimension

Base.Experimental.@optlevel 0

include("syntax.jl")
include("trace.jl")
include("pieces.jl")
include("operators/layers.jl")
include("operators/arithmetic.jl")
include("operators/shapes.jl")
include("write.jl")
include("chain.jl")
include("network.jl")
include("code.jl")
include("save.jl")

end
