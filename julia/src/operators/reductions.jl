# Reductions, ArgMax and ArgMin.

"Register a reduction; the functions are those of [`Reduction`](@ref)."
function reduction(name, @nospecialize(each), @nospecialize(combine), @nospecialize(start), @nospecialize(finish))
    operator(op -> reducing(op, Reduction(each, combine, start, finish, reduction_options(op)...)), name)
end

reduction("ReduceSum", identity, +, zero, O.keep_total)
reduction("ReduceMean", identity, +, zero, O.mean_of_total)
reduction("ReduceMax", identity, max, O.lowest_value, O.keep_total)
reduction("ReduceMin", identity, min, O.highest_value, O.keep_total)
reduction("ReduceProd", identity, *, one, O.keep_total)
reduction("ReduceL1", abs, +, zero, O.keep_total)
reduction("ReduceL2", abs2, +, zero, O.sqrt_total)
reduction("ReduceSumSquare", abs2, +, zero, O.keep_total)
reduction("ReduceLogSum", identity, +, zero, O.log_total)

operator(op -> reducing(op, LogSumExp(reduction_options(op)...)), "ReduceLogSumExp")

reduction_options(op) = int(op, "keepdims") != 0, int(op, "noop_with_empty_axes", 0) == 0

"The layer with the node's axes as its second argument, if it has any."
function reducing(op, layer)
    axes = optional_constant(op, 2, Int64)
    return axes === nothing ? layer : bind_constants(op, layer)
end

"The [`ArgExtreme`](@ref) of a node: `strict` returns the first of equal numbers, `lax` the last."
function extreme(op, strict, lax)
    ArgExtreme(int(op, "select_last_index", 0) == 0 ? strict : lax, int(op, "axis"), int(op, "keepdims") != 0)
end

operator(op -> extreme(op, >, >=), "ArgMax")
operator(op -> extreme(op, <, <=), "ArgMin")
