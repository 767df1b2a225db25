"""
The worker's own layers, for machines where Flux cannot be loaded. They have the names, constructors and semantics of
Flux 0.16, compute the forward pass only, and need nothing but Julia's standard library.

Only what the worker uses of Flux is here. Arrays are `Array{Float32}` of (W, H, C, N), as in Flux. The layers share
buffers, so only one task at a time may call them.

Functions that are called for each row or each tile are inlined: Julia 1.5 boxes the numbers that the functions of a
precompiled package give each other (JuliaLang/julia#35972), and collecting these boxes stops all threads.
"""
module PlainLayers

using LinearAlgebra: BLAS

Base.Experimental.@optlevel 2

include("plain/lanes.jl")
include("plain/activations.jl")
include("plain/thread_pool.jl")
include("plain/buffer_pool.jl")
include("plain/window.jl")
include("plain/product.jl")
include("plain/conv.jl")
include("plain/convolve.jl")
include("plain/prepared_input.jl")
include("plain/depthwise.jl")
include("plain/depthwise_rows.jl")
include("plain/winograd.jl")
include("plain/conv_transpose.jl")
include("plain/pooling.jl")
include("plain/containers.jl")
include("plain/dense.jl")
include("plain/expanded_depthwise.jl")
include("plain/normalisation.jl")

__init__() = PROCESSOR[] = find_processor()

# As in Flux, whose layers convert inputs of other numbers. A view is copied.
for Layer in (Conv, ConvTranspose, Dense, MaxPool, MeanPool, AdaptiveMaxPool, AdaptiveMeanPool, GlobalMaxPool, GlobalMeanPool,
              BatchNorm, GroupNorm, LayerNorm)
    @eval (layer::$Layer)(x::AbstractArray{<:Real}) = layer(convert(Array{Float32}, x))
end

end
