# Reductions, ArgMax and ArgMin.

function reduction(name, @nospecialize(each), @nospecialize(combine), @nospecialize(start), @nospecialize(finish))
    operator(op -> reducing(op, Reduction(each, combine, start, finish, reduction_options(op)...)), name)
end

reduction("ReduceSum", identity, +, zero, O.total)
reduction("ReduceMean", identity, +, zero, O.mean)
reduction("ReduceMax", identity, max, O.smallest, O.total)
reduction("ReduceMin", identity, min, O.largest, O.total)
reduction("ReduceProd", identity, *, one, O.total)
reduction("ReduceL1", abs, +, zero, O.total)
reduction("ReduceL2", abs2, +, zero, O.root)
reduction("ReduceSumSquare", abs2, +, zero, O.total)
reduction("ReduceLogSum", identity, +, zero, O.logarithm)

operator(op -> reducing(op, LogSumExp(reduction_options(op)...)), "ReduceLogSumExp")

reduction_options(op) = int(op, "keepdims") != 0, int(op, "noop_with_empty_axes", 0) == 0

"The layer with its axes, if there are any."
function reducing(op, layer)
    axes = optional(op, 2, Int64)
    return axes === nothing ? layer : bind(op, layer)
end

function extreme(op, strict, lax)
    Extreme(int(op, "select_last_index", 0) == 0 ? strict : lax, int(op, "axis"), int(op, "keepdims") != 0)
end

operator(op -> extreme(op, >, >=), "ArgMax")
operator(op -> extreme(op, <, <=), "ArgMin")
