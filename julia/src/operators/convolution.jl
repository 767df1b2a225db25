# Convolution and transposed convolution.

operator("Conv"; fuses=true) do op
    weight, n = constant(op, 2), kernel_dimensions(op)
    bias = optional_constant(op, 3)
    op.L.Conv(flipped(weight, n), bias === nothing ? false : bias, activation(op);
              window_options(op)..., dilation=spatial(op, "dilations"), groups=int(op, "group"))
end

"The number of spatial dimensions of the weight. Throws [`OperatorError`](@ref) if the options are for another number."
function kernel_dimensions(op)
    n = ndims(constant(op, 2)) - 2
    n >= 1 || refuse(op, "the weight has $(n + 2) dimensions")
    length(ints(op, "dilations")) == length(ints(op, "strides")) == length(ints(op, "pads")) ÷ 2 == n ||
        refuse(op, "strides, dilations and pads do not fit a weight of $(n + 2) dimensions")
    return n
end

"""
    flipped(weight, n)

A copy of the weight with its kernels reversed in all `n` spatial dimensions: ONNX's Conv is a cross-correlation, and
Flux's a convolution. The spatial dimensions come first, so reversing a kernel is reversing a contiguous part.
"""
function flipped(weight, n)
    flipped_weight = copy(weight)
    kernel = prod(size(weight)[1:n])
    for first in 1:kernel:length(flipped_weight)
        reverse!(vec(flipped_weight), first, first + kernel - 1)
    end
    return flipped_weight
end

operator("ConvTranspose"; fuses=true) do op
    n = kernel_dimensions(op)
    weight, bias = flipped(constant(op, 2), n), optional_constant(op, 3)
    stride, groups = spatial(op, "strides"), int(op, "group")
    output_padding = Tuple(reverse(ints(op, "output_padding")))
    length(output_padding) == n && all(>=(0), output_padding) ||
        refuse(op, "the attribute 'output_padding' has the values $output_padding")
    # Output padding first replaces cropping at the end; only what is left of it extends the output.
    pad = Tuple(isodd(i) ? p : max(0, p - output_padding[i÷2]) for (i, p) in enumerate(pads(op)))
    outpad = Tuple(max(0, output_padding[i] - pads(op)[2i]) for i in 1:n)
    within = min.(outpad, stride .- 1)
    layer(bias, σ) = op.L.ConvTranspose(weight, bias, σ; stride=stride, pad=pad, outpad=within,
                                        dilation=spatial(op, "dilations"), groups=groups)
    outpad == within && return layer(bias === nothing ? false : bias, activation(op))
    bias === nothing && (bias = zeros(Float32, size(weight, n + 1) * groups))
    ExtendedConvTranspose(layer(false, identity), outpad .- within, bias, activation(op))
end
