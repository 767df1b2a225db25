# Running sums and products.

export Cumulative

"""
    Cumulative(combine, start, exclusive, reverse)

ONNX's CumSum and CumProd: (x, axis). Each element of the result combines those of `x` up to its own along the axis, or, if
`exclusive`, those before it, of which the first has none: `start(T)` for elements of type `T`. With `reverse`, from the
last to the first.
"""
struct Cumulative{C,S}
    combine::C
    start::S
    exclusive::Bool
    reverse::Bool
end

function (c::Cumulative)(@nospecialize(x), axis)
    d = dimension(x, first(axis))
    y = Array{eltype(x)}(undef, size(x))
    accumulate!(flatten_around(y, d), c.combine, c.start(eltype(x)), flatten_around(x, d), c.exclusive, c.reverse)
    return y
end

function accumulate!(y, combine::C, start, x, exclusive, is_reverse) where {C}
    n = size(x, 2)
    for outer in axes(x, 3), inner in axes(x, 1)
        total = start
        for k in 1:n
            at = is_reverse ? n + 1 - k : k
            next = combine(total, x[inner, at, outer])
            y[inner, at, outer] = exclusive ? total : next
            total = next
        end
    end
    return nothing
end
