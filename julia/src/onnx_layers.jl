"""
Layers for the ONNX operators that Flux has no layer for. Both backends use them. A layer that needs a function of the
backend, as `softmax` or `maxpool`, holds it in a field.
"""
module OnnxLayers

Base.Experimental.@optlevel 2

using LinearAlgebra: mul!, rmul!
import ..PlainLayers: allocates_output, normalise_columns, reshapes_input
using ..PlainLayers: BatchNorm, Conv, Dense, ELEMENT_COST, PROCESSOR, PreparedInput, Processor, acquire, batched_mul, copy_elements!,
    fold_run, logsoftmax, parallel_for, release!, scale_and_shift, softmax, takes_prepared, transpose_eight!

include("onnx_layers/strided.jl")
include("onnx_layers/inputs.jl")
include("onnx_layers/scalar_functions.jl")
include("onnx_layers/elementwise.jl")
include("onnx_layers/axes.jl")
include("onnx_layers/shape.jl")
include("onnx_layers/indexing.jl")
include("onnx_layers/cumulative.jl")
include("onnx_layers/reductions.jl")
include("onnx_layers/matmul.jl")
include("onnx_layers/einsum.jl")
include("onnx_layers/convolution.jl")
include("onnx_layers/prepared_conv.jl")
include("onnx_layers/pooling.jl")
include("onnx_layers/normalisation.jl")
include("onnx_layers/resampling.jl")
include("onnx_layers/grid_sample.jl")
include("onnx_layers/padding.jl")
include("onnx_layers/space_to_depth.jl")
include("onnx_layers/recurrent.jl")
include("onnx_layers/device_arrays.jl")

end
