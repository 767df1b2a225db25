# Reductions over any axes.

export LogSumExp, Reduction

"""
    Reduction(each, combine, start, finish, keepdims, all_axes)

Reduce along axes: fold `each(number)` with `combine`, beginning with `start(T)` for elements of type `T`, to a total; the
result is `finish(total, count)`. Called with (x) or (x, axes). Without axes, or with an empty list of them, it reduces
all axes if `all_axes`, and none otherwise (ONNX's noop_with_empty_axes).
"""
struct Reduction{E,C,S,F}
    each::E
    combine::C
    start::S
    finish::F
    keepdims::Bool
    all_axes::Bool
end

keep_total(total, count) = total
mean_of_total(total, count) = quotient(total, count)
log_total(total, count) = log(total)
sqrt_total(total, count) = sqrt(total)

lowest_value(T) = typemin(T)
highest_value(T) = typemax(T)

function (r::Reduction)(@nospecialize(x::Array), axes=nothing)
    sizes = shape_of(x)
    dims = reduced_dims(ndims(x), axes, r.all_axes)
    kept = Int[d in dims ? 1 : sizes[d] for d in eachindex(sizes)]
    y = fill(r.start(eltype(x)), Tuple(kept))
    if sort(dims) == 1:length(dims)
        fold_runs!(vec(y), r.each, r.combine, vec(x), prod(sizes[dims]))
    else
        fold!(vec(y), r.each, r.combine, vec(x),
              StridedLoop(sizes, contiguous_strides(sizes), broadcast_strides(kept, sizes)))
    end
    return drop_dims(Elementwise(Base.Fix2(r.finish, prod(sizes[dims])))(y), dims, r.keepdims)
end

allocates_output(::Reduction) = true

"The dimensions to reduce."
function reduced_dims(rank, axes, all_axes)
    axes === nothing || isempty(axes) || return Int[dimension(rank, axis) for axis in axes]
    return all_axes ? collect(1:rank) : Int[]
end

"`y` without the dimensions `dims`, which have size 1, or `y` itself with `keepdims`."
function drop_dims(@nospecialize(y), dims, keepdims)
    return keepdims ? y : reshape(y, Tuple(Int[size(y, d) for d in 1:ndims(y) if !(d in dims)]))
end

"Fold `n` consecutive numbers of `x` into each number of `y`."
function fold_runs!(y, each::E, combine::C, x, n) where {E,C}
    parallel_for(length(y), ELEMENT_COST * length(x)) do _, items
        for i in items
            y[i] = fold_run(y[i], each, combine, x, (i - 1) * n, n)
        end
    end
    return nothing
end

"""
Fold each number of `x` into the number of `y` at its position. The strides of `y` in the loop are 0 where it is
reduced.
"""
function fold!(y, each::E, combine::C, x, w) where {E,C}
    n, step = w.sizes[1], w.b_strides[1]
    foreach_run(w) do _, i, j
        if step == 0
            total = y[j+1]
            @inbounds @simd for l in 1:n
                total = combine(total, each(x[i+l]))
            end
            y[j+1] = total
        else
            @inbounds @simd for l in 1:n
                y[j+l] = combine(y[j+l], each(x[i+l]))
            end
        end
    end
    return nothing
end

finite(x) = ifelse(isfinite(x), x, zero(x))

"ONNX's ReduceLogSumExp: the logarithm of the sum of exponentials, computed without overflow."
struct LogSumExp
    keepdims::Bool
    all_axes::Bool
end

function (l::LogSumExp)(x, axes=nothing)
    top = Reduction(identity, max, lowest_value, keep_total, true, l.all_axes)(x, axes)
    shift = Elementwise(finite)(top)
    sums = Reduction(exp, +, zero, keep_total, true, l.all_axes)(Elementwise(-)(x, shift), axes)
    return drop_dims(Elementwise(+)(Elementwise(log)(sums), shift), reduced_dims(ndims(x), axes, l.all_axes), l.keepdims)
end
