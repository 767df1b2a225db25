# Transposed convolution with more output padding than Flux's layer supports.

export ExtendedConvTranspose

"""
A transposed `convolution` without bias whose output is extended by `extra` at its end; then the `bias` is added and `σ`
applied.

Flux's ConvTranspose throws `DimensionMismatch` if `outpad` is not less than the stride (FluxML/Flux.jl#2462).
"""
struct ExtendedConvTranspose{C,F}
    convolution::C
    extra::Tuple
    bias::Vector{Float32}
    σ::F
end

function (l::ExtendedConvTranspose)(x)
    y = l.convolution(x)
    longer = fill!(similar(y, size(y) .+ (l.extra..., 0, 0)), 0)
    longer[axes(y)...] = y
    return Elementwise(l.σ)(Elementwise(+)(longer, reshape(l.bias, map(one, l.extra)..., :)))
end

Base.show(io::IO, l::ExtendedConvTranspose) = print(io, "ExtendedConvTranspose(", l.convolution, ", ", l.extra, ")")
