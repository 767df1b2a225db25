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

"""
The weight with its kernels turned about in all their `n` spatial dimensions: ONNX's Conv is a
cross-correlation, Flux's a convolution. These dimensions come first, so a kernel is one stretch of
memory, and turning it about is reversing that.
"""
function flipped(weight, n)
    turned = copy(weight)
    kernel = prod(size(weight)[1:n])
    for first in 1:kernel:length(turned)
        reverse!(vec(turned), first, first + kernel - 1)
    end
    return turned
end

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

operator(op -> op.L.GlobalMeanPool(), "GlobalAveragePool")
operator(op -> op.L.GlobalMaxPool(), "GlobalMaxPool")
