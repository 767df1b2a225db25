"""
The Julia side of fluxdrop. It reads a graph file, which the daemon compiles from an ONNX file, builds a model of Flux
layers, or of [`PlainLayers`](@ref) where Flux cannot be loaded, and answers the requests of docs/protocol.md.

    backend = choose_backend("auto")
    model = build!(read_graph("model.graph"), backend)
    y = predict(model, x)

`x` is an `Array{Float32}` of (W, H, C, N), and `y` one of (labels, N).

`choose_backend` loads Flux at run time. Call `build` and `predict` from a later top-level statement: code that was
already running does not see Flux's methods (the Julia manual, "World age").

Runs on Julia 1.5 and later.
"""
module FluxdropWorker

using LinearAlgebra: rmul!
using SHA: sha256

# Most of this code runs once per model, so compile it without optimisation. PlainLayers and OnnxLayers set their own
# level.
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
include("fast.jl")
include("native.jl")
include("juliacall.jl")
include("compiled_models.jl")
include("options.jl")
include("process.jl")
include("serve.jl")
include("workload.jl")

precompiling() && run_workload(choose_backend("plain"))

end
