# Resizing, padding, and moving blocks of pixels to channels and back.

operator("Resize"; any_input=true) do op
    resize = Resize(text(op, "mode"), text(op, "coordinate_transformation_mode"), text(op, "nearest_mode"),
                    text(op, "keep_aspect_ratio_policy"), int(op, "antialias") == 1, int(op, "exclude_outside") == 1,
                    float(op, "cubic_coeff_a"), float(op, "extrapolation_value"), ints(op, "axes"))
    bind_constants(op, length(op.inputs) == 2 ? (x, scales) -> resize(x, nothing, scales) : resize)
end

operator("Upsample"; any_input=true) do op
    resize = Resize(text(op, "mode"), "asymmetric", "floor", "stretch", false, false, 0.0f0, 0.0f0, Int[])
    length(op.inputs) == 2 && return bind_constants(op, (x, scales) -> resize(x, nothing, scales))
    scales = Float32[parse_value(op, "scales", Float32, value) for value in attribute(op, "scales")]
    return x -> resize(x, nothing, scales)
end

operator("GridSample"; any_input=true) do op
    bind_constants(op, GridSample(text(op, "mode"), text(op, "padding_mode"), int(op, "align_corners") == 1))
end

operator(op -> bind_constants(op, Pad(text(op, "mode"))), "Pad"; any_input=true)

operator(op -> SpaceToDepth(int(op, "blocksize"), text(op, "mode") == "CRD"), "SpaceToDepth")
operator(op -> DepthToSpace(int(op, "blocksize"), text(op, "mode") == "CRD"), "DepthToSpace")
