# Normalisation.

operator("BatchNormalization"; any_output=true, fuses=true) do op
    γ, β, μ, σ² = (constant(op, i) for i in 2:5)
    all(v -> size(v) == size(γ), (β, μ, σ²)) || refuse(op, "scale, bias, mean and variance are not of one shape")
    int(op, "training_mode", 0) == 1 &&
        return TrainingBatchNorm(γ, β, μ, σ², float(op, "epsilon"), float(op, "momentum"), activation(op), op.outputs)
    op.outputs == 1 || refuse(op, "its second output is read, which there is in training mode only")
    if ndims(γ) != 1
        scale = γ ./ sqrt.(σ² .+ float(op, "epsilon"))
        return Affine(scale, β .- μ .* scale, activation(op))
    end
    norm = op.L.BatchNorm(length(γ), activation(op); initβ=_ -> β, initγ=_ -> γ, eps=float(op, "epsilon"))
    copyto!(norm.μ, μ)
    copyto!(norm.σ², σ²)
    op.L.testmode!(norm)
end

operator("InstanceNormalization"; fuses=true) do op
    γ, β = scale_and_bias(op)
    op.L.InstanceNorm(length(γ), activation(op); initβ=_ -> β, initγ=_ -> γ, affine=true, eps=float(op, "epsilon"))
end

operator("GroupNormalization"; fuses=true) do op
    γ, β = scale_and_bias(op)
    groups = int(op, "num_groups")
    channels = int(op, "channels", length(γ))
    # Before opset 21, scale and bias had one number for each group.
    γ, β = (length(v) == channels ? v : repeat(v; inner=channels ÷ groups) for v in (γ, β))
    op.L.GroupNorm(channels, groups, activation(op); initβ=_ -> β, initγ=_ -> γ, eps=float(op, "epsilon"))
end

"The second and third input. Throws [`OperatorError`](@ref) unless they are vectors of one length."
function scale_and_bias(op)
    γ, β = constant(op, 2), constant(op, 3)
    ndims(γ) == 1 && size(β) == size(γ) || refuse(op, "scale and bias are not vectors of one length")
    return γ, β
end

operator("LayerNormalization"; any_input=true, any_output=true) do op
    bind_constants(op, LayerNormalization(int(op, "axis"), float(op, "epsilon"), op.outputs))
end

operator("LRN") do op
    LocalResponseNorm(int(op, "size"), float(op, "alpha"), float(op, "beta"), float(op, "bias"))
end
