# The text of flux_model.jl.

"""
    flux_code(graph, shape; channels_last=false) -> (text, weights)

The text of the flux_model.jl of a graph, for pictures of `shape`, (channels, height, width), and the weights: pairs of the
path to a layer in the model, and its arrays by field. With `channels_last` the graph takes NHWC, and the model, as all
Flux models, WHCN nevertheless.

Throws `OperatorError` for a node that Flux cannot compute, `GraphError` for a graph that does not take such pictures.
"""
function flux_code(graph::Graph, shape; channels_last=false)
    channels_last && (graph = transposed_input(graph))
    pieces, input, output = write_pieces(graph, shape)
    items = find_chain(pieces, input, output)
    weights = Any[]
    if items === nothing
        body, weights = network_code(pieces, input, output)
    else
        body = "architecture() = $(chain_code(items, Any[], weights))\n"
    end
    helper = occursin("LayerNormalisation(", body) ? LAYER_NORMALISATION * '\n' : ""
    text = """
        # Written by `fluxdrop model export`. It takes pictures as an array of (width, height, channels, pictures), here of
        # ($(shape[3]), $(shape[2]), $(shape[1]), N), and returns a matrix of (labels, N).
        using Flux, JLD2

        $helper$body
        function build_model()
            state = JLD2.load(joinpath(@__DIR__, "weights.jld2"), "state")
            return Flux.loadmodel!(architecture(), state)
        end
        """
    return text, weights
end

"The graph with a transposition before its first node: it takes NCHW instead of NHWC."
function transposed_input(graph)
    input = "the input of NCHW"
    node = Node("Transpose", "", [input], [graph.input], Dict("perm" => ["0", "2", "3", "1"]))
    n, h, w, c = length(graph.shape) == 4 ? graph.shape : throw(GraphError("the model does not take pictures"))
    return Graph(input, [n, c, h, w], graph.constants, [node; graph.nodes], graph.output)
end
