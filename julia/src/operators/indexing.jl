# Operators that pick and replace elements by their indices, and running sums.

operator(op -> bind_constants(op, GatherElements(int(op, "axis"))), "GatherElements"; any_input=true)
operator(op -> bind_constants(op, ScatterElements(scatter_reduction(op), int(op, "axis"))), "ScatterElements"; any_input=true)
operator(op -> bind_constants(op, ScatterND(scatter_reduction(op))), "ScatterND"; any_input=true)

function scatter_reduction(op)
    name = text(op, "reduction")
    return name == "none" ? O.replacement : name == "add" ? (+) : name == "mul" ? (*) : name == "max" ? max :
        name == "min" ? min : refuse(op, "the reduction '$name' is not known")
end

operator("TopK"; any_input=true, any_output=true) do op
    bind_constants(op, TopK(int(op, "axis"), int(op, "largest") == 1, op.outputs))
end

cumulative(@nospecialize(combine), @nospecialize(start), name) = operator(name; any_input=true) do op
    bind_constants(op, Cumulative(combine, start, int(op, "exclusive") == 1, int(op, "reverse") == 1))
end
cumulative(+, zero, "CumSum")
cumulative(*, one, "CumProd")
