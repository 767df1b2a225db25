"""
Layers with the names, constructors and semantics of Flux 0.16's, forward only, on `Array{Float32}`
and Julia's standard library alone: what the worker computes with where Flux cannot be loaded.

Only the part of Flux's interface that the worker uses is here. Arrays are WHCN, as in Flux: width,
height, channels, batch. The layers share their buffers, so one task at a time may use them.
"""
module PlainLayers

using LinearAlgebra: BLAS

Base.Experimental.@optlevel 2

include("plain/activations.jl")
include("plain/thread_pool.jl")
include("plain/buffer_pool.jl")
include("plain/window.jl")
include("plain/conv.jl")
include("plain/depthwise.jl")
include("plain/conv_transpose.jl")
include("plain/pooling.jl")
include("plain/basic.jl")
include("plain/normalisation.jl")

end
