# Transposed convolution beyond what Flux's layer does.

export ExtendedConvTranspose

"""
A transposed `convolution` without bias, made longer at its end by `extra`, where no window reaches:
Flux's layer takes no `outpad` of the stride or more. Then `σ` of the sum with the `bias`.
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
