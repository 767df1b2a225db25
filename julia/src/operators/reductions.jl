# Reductions, ArgMax and ArgMin.

for (name, each, combine, start, finish) in (
    ("ReduceSum", identity, +, zero, O.total), ("ReduceMean", identity, +, zero, O.mean),
    ("ReduceMax", identity, max, O.smallest, O.total), ("ReduceMin", identity, min, O.largest, O.total),
    ("ReduceProd", identity, *, one, O.total), ("ReduceL1", abs, +, zero, O.total), ("ReduceL2", abs2, +, zero, O.root),
    ("ReduceSumSquare", abs2, +, zero, O.total), ("ReduceLogSum", identity, +, zero, O.logarithm))
    operator(op -> reducing(op, Reduction(each, combine, start, finish, reduction_options(op)...)), name)
end

operator(op -> reducing(op, LogSumExp(reduction_options(op)...)), "ReduceLogSumExp")

reduction_options(op) = int(op, "keepdims") != 0, int(op, "noop_with_empty_axes", 0) == 0

"The layer with its axes, if there are any."
function reducing(op, layer)
    axes = optional(op, 2, Int64)
    return axes === nothing ? layer : bind(op, layer)
end

for (name, strict, lax) in (("ArgMax", >, >=), ("ArgMin", <, <=))
    operator(name) do op
        Extreme(int(op, "select_last_index", 0) == 0 ? strict : lax, int(op, "axis"), int(op, "keepdims") != 0)
    end
end
