"""
What ONNX has and Flux has no layer for. Both backends use these; where one needs a function of Flux's
(`softmax`, `maxpool`), it holds the backend's.
"""
module OnnxLayers

Base.Experimental.@optlevel 2

export AlongAxis, Bound, Clamp, Computed, COMPUTED, Concat, DilatedPool, Elementwise, Flatten, Product, Reshape,
    Transpose, UnpaddedMean

include("onnx_layers/inputs.jl")
include("onnx_layers/elementwise.jl")
include("onnx_layers/axes.jl")
include("onnx_layers/shape.jl")
include("onnx_layers/products.jl")
include("onnx_layers/windows.jl")

end
