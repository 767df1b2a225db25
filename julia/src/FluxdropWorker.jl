"""
The Julia side of fluxdrop: reads a graph file (what the daemon's compiler makes of an ONNX file),
builds the model out of Flux's layers, or of [`PlainLayers`](@ref) where Flux cannot be loaded, and answers
the frames of docs/protocol.md.

    backend = choose_backend("auto")  # and its device, a GPU or the CPU
    model = build(read_graph(read("model.graph")), backend)
    predict(model, x)  # x and the answer are WHCN: (W, H, C, N), (labels, N)

Flux is loaded while the program runs: call what comes after `choose_backend` from a new top-level
statement, or it does not see Flux's methods.

Runs on Julia 1.5 and later.
"""
module FluxdropWorker

using LinearAlgebra: rmul!
using SHA: sha256

# Most of this runs once a model: the two modules of layers alone are worth the time that optimising takes.
Base.Experimental.@optlevel 0

include("plain.jl")
include("onnx_layers.jl")
using .OnnxLayers
include("errors.jl")
include("shared_memory.jl")
include("wire.jl")
include("tensors.jl")
include("graph.jl")
include("npy.jl")
include("devices.jl")
include("backend.jl")
include("operators.jl")
include("plan.jl")
include("model.jl")
include("native.jl")
include("juliacall.jl")
include("options.jl")
include("process.jl")
include("serve.jl")
include("workload.jl")

precompiling() && run_workload(choose_backend("plain"))

end
