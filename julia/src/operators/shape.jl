# Operators that reorder, select and reshape. Shapes, axes and indices may be computed.

operator(op -> Flatten(int(op, "axis")), "Flatten")

operator("Reshape"; any_input=true) do op
    shape = op.inputs[2]
    if shape !== COMPUTED
        shape = constant(op, 2, Int64)
        all(>=(-1), shape) && count(==(-1), shape) <= 1 && length(shape) <= MAXIMUM_RANK ||
            refuse(op, "the shape $shape is impossible")
    end
    bind_constants(op, Reshape(int(op, "allowzero") != 0))
end

operator(op -> bind_constants(op, Squeeze()), "Squeeze"; any_input=true)
operator(op -> bind_constants(op, Unsqueeze()), "Unsqueeze"; any_input=true)
operator(op -> bind_constants(op, Concat(int(op, "axis"))), "Concat"; any_input=true)
operator(op -> bind_constants(op, Slice()), "Slice"; any_input=true)
operator(op -> bind_constants(op, Gather(int(op, "axis"))), "Gather"; any_input=true)
operator(op -> bind_constants(op, GatherND(int(op, "batch_dims"))), "GatherND"; any_input=true)
operator(op -> bind_constants(op, Expand()), "Expand"; any_input=true)
operator(op -> bind_constants(op, Tile()), "Tile"; any_input=true)
operator(op -> ShapeOf(int(op, "start"), int(op, "end")), "Shape")
operator(op -> O.element_count, "Size")
operator(op -> bind_constants(op, O.onnx_range), "Range"; any_input=true)

operator("Split"; any_input=true, any_output=true) do op
    length(op.inputs) >= 2 && op.inputs[2] !== nothing && return bind_constants(op, Split(int(op, "axis"), op.outputs))
    EvenSplit(int(op, "axis"), op.outputs, int(op, "num_outputs", length(op.node.outputs)))
end

operator("Transpose") do op
    perm = ints(op, "perm")
    n = length(perm)
    sort(perm) == 0:n-1 || refuse(op, "perm = $perm is not a permutation")
    Transpose(Int[n - perm[n-d+1] for d in 1:n])
end

operator("ConstantOfShape") do op
    value = text(op, "value")
    integer = tryparse(Int64, value)
    ConstantOfShape(integer === nothing ? float(op, "value") : integer)
end
