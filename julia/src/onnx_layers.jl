"""
What ONNX has and Flux has no layer for. Both backends use these; where one needs a function of Flux's
(`softmax`, `maxpool`), it holds the backend's.
"""
module OnnxLayers

Base.Experimental.@optlevel 2

using LinearAlgebra: rmul!

export DilatedPool, UnpaddedMean

include("onnx_layers/walk.jl")
include("onnx_layers/inputs.jl")
include("onnx_layers/functions.jl")
include("onnx_layers/elementwise.jl")
include("onnx_layers/axes.jl")
include("onnx_layers/shape.jl")
include("onnx_layers/reductions.jl")
include("onnx_layers/products.jl")
include("onnx_layers/einsum.jl")
include("onnx_layers/windows.jl")

end
