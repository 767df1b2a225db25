# Resizing, padding, and blocks of pixels as channels.

operator("Resize"; any_input=true) do op
    resize = Resize(word(op, "mode"), word(op, "coordinate_transformation_mode"), word(op, "nearest_mode"),
                    word(op, "keep_aspect_ratio_policy"), int(op, "antialias") == 1, int(op, "exclude_outside") == 1,
                    float(op, "cubic_coeff_a"), float(op, "extrapolation_value"), ints(op, "axes"))
    bind(op, length(op.inputs) == 2 ? (x, scales) -> resize(x, nothing, scales) : resize)
end

operator("Upsample"; any_input=true) do op
    resize = Resize(word(op, "mode"), "asymmetric", "floor", "stretch", false, false, 0.0f0, 0.0f0, Int[])
    length(op.inputs) == 2 && return bind(op, (x, scales) -> resize(x, nothing, scales))
    scales = Float32[parsed(op, "scales", Float32, value) for value in attribute(op, "scales")]
    return x -> resize(x, nothing, scales)
end

operator(op -> bind(op, Pad(word(op, "mode"))), "Pad"; any_input=true)

operator(op -> SpaceToDepth(int(op, "blocksize"), word(op, "mode") == "CRD"), "SpaceToDepth")
operator(op -> DepthToSpace(int(op, "blocksize"), word(op, "mode") == "CRD"), "DepthToSpace")
