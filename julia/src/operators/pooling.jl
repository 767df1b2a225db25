# Pooling: Flux's layers if they have the node's options, and layers of OnnxLayers otherwise.

operator("MaxPool"; any_output=true) do op
    op.outputs > 1 && return MaxPoolWithIndices(general_pool(op, op.L.maxpool), int(op, "storage_order") == 1)
    flux_layer_suffices(op) ? op.L.MaxPool(spatial(op, "kernel_shape"); window_options(op)...) :
        general_pool(op, op.L.maxpool)
end

operator("AveragePool") do op
    counts_pads = int(op, "count_include_pad") == 1
    counts_all = int(op, "ceil_mode") == 0 && (counts_pads || all(iszero, pads(op)))
    counts_all || return AveragePool(general_pool(op, op.L.meanpool), counts_pads)
    flux_layer_suffices(op) ? op.L.MeanPool(spatial(op, "kernel_shape"); window_options(op)...) :
        general_pool(op, op.L.meanpool)
end

operator(op -> LpPool(general_pool(op, op.L.meanpool), int(op, "p")), "LpPool")

"Whether Flux's layer has all options of the node. Throws [`OperatorError`](@ref) if the options do not fit each other."
function flux_layer_suffices(op)
    n = length(spatial(op, "kernel_shape"))
    length(spatial(op, "strides")) == length(pads(op)) ÷ 2 == length(spatial(op, "dilations")) == n ||
        refuse(op, "kernel_shape, strides, dilations and pads do not fit each other")
    return int(op, "ceil_mode") == 0 && all(isone, spatial(op, "dilations"))
end

"A [`Pool`](@ref) that calls the backend's `pool` with the node's options."
function general_pool(op, pool)
    flux_layer_suffices(op)
    options = window_options(op)
    return Pool(pool, op.L.PoolDims, spatial(op, "kernel_shape"), options.stride, options.pad,
                spatial(op, "dilations"), int(op, "ceil_mode") == 1)
end

operator(op -> op.L.GlobalMeanPool(), "GlobalAveragePool")
operator(op -> op.L.GlobalMaxPool(), "GlobalMaxPool")
operator(op -> GlobalLpPool(int(op, "p")), "GlobalLpPool")
