# Convolution, pooling and normalisation.

operator("Conv"; fuses=true) do op
    weight = constant(op, 2)
    n = ndims(weight) - 2
    n >= 1 || refuse(op, "the weight has $(ndims(weight)) dimensions")
    dilation = spatial(op, "dilations")
    options = window_options(op)
    length(dilation) == length(options.stride) == length(options.pad) ÷ 2 == n ||
        refuse(op, "strides, dilations and pads do not fit a weight of $(ndims(weight)) dimensions")
    bias = optional(op, 3)
    op.L.Conv(flipped(weight, n), bias === nothing ? false : bias, activation(op);
              options..., dilation=dilation, groups=int(op, "group"))
end

"ONNX's Conv is a cross-correlation, Flux's a convolution: the kernel is flipped once, here."
flipped(weight, n) = weight[ntuple(i -> i <= n ? (size(weight, i):-1:1) : (1:size(weight, i)), ndims(weight))...]

operator("BatchNormalization"; fuses=true) do op
    only_value(op, "training_mode", 0)
    γ, β, μ, σ² = (constant(op, i) for i in 2:5)
    all(v -> size(v) == size(γ), (β, μ, σ²)) && ndims(γ) == 1 ||
        refuse(op, "scale, bias, mean and variance are not vectors of one length")
    norm = op.L.BatchNorm(length(γ), activation(op); initβ=_ -> β, initγ=_ -> γ, eps=float(op, "epsilon"))
    copyto!(norm.μ, μ)
    copyto!(norm.σ², σ²)
    op.L.testmode!(norm)
end

operator("MaxPool") do op
    only_value(op, "ceil_mode", 0)
    only_value(op, "storage_order", 0)
    pooling(op, op.L.MaxPool, op.L.maxpool)
end

operator("AveragePool") do op
    only_value(op, "ceil_mode", 0)
    pool = pooling(op, op.L.MeanPool, op.L.meanpool)
    int(op, "count_include_pad") == 1 || all(iszero, pads(op)) ? pool : UnpaddedMean(pool)
end

function pooling(op, layer, f)
    kernel, options = spatial(op, "kernel_shape"), window_options(op)
    dilation = haskey(op.node.attributes, "dilations") ? spatial(op, "dilations") : map(one, kernel)
    length(options.stride) == length(options.pad) ÷ 2 == length(dilation) == length(kernel) ||
        refuse(op, "kernel_shape, strides, dilations and pads do not fit each other")
    all(isone, dilation) && return layer(kernel; options...)
    return DilatedPool(f, op.L.PoolDims, kernel, options.stride, options.pad, dilation)
end

"Pooling with dilation, which Flux's layers lack and the functions of NNlib below them have."
struct DilatedPool{F,D,N,M}
    pool::F
    dims::D
    kernel::NTuple{N,Int}
    stride::NTuple{N,Int}
    pad::NTuple{M,Int}
    dilation::NTuple{N,Int}
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

operator(op -> op.L.GlobalMeanPool(), "GlobalAveragePool")
operator(op -> op.L.GlobalMaxPool(), "GlobalMaxPool")
