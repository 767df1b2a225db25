# What slides over a plane.

"Pooling with dilation, which Flux's layers lack and the functions of NNlib below them have."
struct DilatedPool{F,D}
    pool::F
    dims::D
    kernel::Tuple
    stride::Tuple
    pad::Tuple
    dilation::Tuple
end

(p::DilatedPool)(x) = p.pool(x, p.dims(x, p.kernel; stride=p.stride, padding=p.pad, dilation=p.dilation))

Base.show(io::IO, p::DilatedPool) = print(io, "DilatedPool(", p.pool, ", ", p.kernel, ", dilation=", p.dilation, ")")

"A mean pooling whose divisor leaves the padding out: Flux's counts it in."
struct UnpaddedMean{P}
    pool::P
end

function (m::UnpaddedMean)(x)
    ones = fill!(similar(x, size(x)[1:end-2]..., 1, 1), 1)
    return m.pool(x) ./ m.pool(ones)
end

Base.show(io::IO, m::UnpaddedMean) = print(io, "UnpaddedMean(", m.pool, ")")
