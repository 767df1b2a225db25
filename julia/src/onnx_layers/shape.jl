# Reordering, selecting and reshaping. Shapes and indices are vectors of integers in ONNX's order, outermost first.

export Concat, ConstantOfShape, EvenSplit, Expand, Flatten, Gather, GatherND, Reshape, ShapeOf, Slice, Split, Squeeze, Tile, Transpose, Unsqueeze,
    element_count

"ONNX's Flatten: reshape to a matrix, cut before `axis`. (inner..., outer...) becomes (inner, outer)."
struct Flatten
    axis::Int
end

function (f::Flatten)(x)
    inner = f.axis < 0 ? -f.axis : ndims(x) - f.axis
    0 <= inner <= ndims(x) || throw(DimensionMismatch("there is no axis $(f.axis) in a tensor of $(ndims(x)) dimensions"))
    return reshape(x, size_of_axes(x, 1:inner), size_of_axes(x, inner+1:ndims(x)))
end

"The product of the sizes of `x` in the dimensions `axes`."
function size_of_axes(x, axes)
    total = 1
    for axis in axes
        total *= size(x, axis)
    end
    return total
end

"""
ONNX's Reshape: (x, shape). In `shape`, -1 is inferred, and 0 keeps the input's size unless `zeros` (ONNX's allowzero).
Throws `DimensionMismatch` if the sizes do not fit.
"""
struct Reshape
    zeros::Bool
end

function (r::Reshape)(x, shape)
    wanted = Int[n == 0 && !r.zeros ? size(x, dimension(x, i - 1)) : n for (i, n) in enumerate(shape)]
    free = findfirst(==(-1), wanted)
    if free !== nothing
        rest = -prod(wanted)
        rest > 0 && length(x) % rest == 0 ||
            throw(DimensionMismatch("a tensor of shape $(reverse(size(x))) cannot become $(Tuple(shape))"))
        wanted[free] = length(x) ÷ rest
    end
    return reshape(x, Tuple(reverse(wanted)))
end

"ONNX's Squeeze: (x) or (x, axes). Throws `DimensionMismatch` if an axis has another size than 1."
struct Squeeze end

(s::Squeeze)(x, axes=nothing) = squeezed(x, axes === nothing ? findall(isone, shape_of(x)) : [dimension(x, a) for a in axes])

function squeezed(x, dims)
    all(d -> size(x, d) == 1, dims) ||
        throw(DimensionMismatch("a tensor of shape $(reverse(size(x))) has other sizes than 1 on the axes to squeeze"))
    return drop_dims(x, dims, false)
end

"ONNX's Unsqueeze: (x, axes). Throws `DimensionMismatch` if an axis is named twice."
struct Unsqueeze end

function (u::Unsqueeze)(x, axes)
    rank = ndims(x) + length(axes)
    new = Int[dimension(rank, axis) for axis in axes]
    allunique(new) || throw(DimensionMismatch("the axes $(Tuple(axes)) name one twice"))
    sizes = shape_of(x)
    return reshape(x, Tuple(Int[d in new ? 1 : popfirst!(sizes) for d in 1:rank]))
end

reshapes_input(::Union{Flatten,Reshape,Squeeze,Unsqueeze}) = true

"ONNX's Concat of any number of tensors along `axis`. Throws `DimensionMismatch` if their shapes differ otherwise."
struct Concat
    axis::Int
end

function (c::Concat)(@nospecialize(xs::Array...))
    sizes, d = shape_of(first(xs)), dimension(first(xs), c.axis)
    T, whole = eltype(first(xs)), 0
    for x in xs
        sizes[d] = size(x, d)
        shape_of(x) == sizes || throw(DimensionMismatch(
            "shapes $(reverse(size(first(xs)))) and $(reverse(size(x))) cannot be joined along axis $(c.axis)"))
        T, whole = promote_type(T, eltype(x)), whole + size(x, d)
    end
    sizes[d] = whole
    y = uninitialised(T, Tuple(sizes))
    inner, outer, start = prod(sizes[1:d-1]), prod(sizes[d+1:end]), 0
    for x in xs
        part = inner * size(x, d)
        copy_blocks!(vec(y), start, inner * whole, vec(x), 0, part, part, outer)
        start += part
    end
    return y
end

"Copy `count` blocks of `n` elements. Offsets count from 0 and advance by their step from block to block."
function copy_blocks!(y, at, y_step, x, from, x_step, n, count)
    parallel_for(count, ELEMENT_COST * n * count) do _, blocks
        for k in blocks .- 1
            copyto!(y, at + k * y_step + 1, x, from + k * x_step + 1, n)
        end
    end
    return nothing
end

allocates_output(::Concat) = true

(c::Concat)(xs...) = cat(xs...; dims=dimension(first(xs), c.axis))

"""
    Split(axis, parts)

ONNX's Split: (x, sizes) to the tuple of its first `parts` pieces, or to the piece itself if `parts` is 1. Throws
`DimensionMismatch` if `sizes` do not add up.
"""
struct Split
    axis::Int
    parts::Int
end

function (s::Split)(x, sizes)
    whole, d = shape_of(x), dimension(x, s.axis)
    sum(sizes) == whole[d] || throw(DimensionMismatch("$(whole[d]) elements cannot be split into $(Tuple(sizes))"))
    pieces, steps, start = Any[], contiguous_strides(whole), 0
    for i in 1:s.parts
        piece = Int[k == d ? sizes[i] : whole[k] for k in eachindex(whole)]
        push!(pieces, copy_strided(x, piece, steps, start * steps[d]))
        start += sizes[i]
    end
    return s.parts == 1 ? pieces[1] : Tuple(pieces)
end

"[`Split`](@ref) into `count` pieces of equal size, of which the last may be smaller."
struct EvenSplit
    axis::Int
    parts::Int
    count::Int
end

function (s::EvenSplit)(x)
    n = size(x, dimension(x, s.axis))
    share = cld(n, s.count)
    return Split(s.axis, s.parts)(x, Int[clamp(n - share * i, 0, share) for i in 0:s.count-1])
end

"ONNX's Transpose. `order` has for each dimension of the result the input's dimension, both in Julia's order."
struct Transpose
    order::Vector{Int}
end

function (t::Transpose)(@nospecialize(x::Array))
    length(t.order) == ndims(x) ||
        throw(DimensionMismatch("a permutation of $(length(t.order)) axes and a tensor of $(ndims(x)) dimensions"))
    sizes = shape_of(x)
    return copy_strided(x, sizes[t.order], contiguous_strides(sizes)[t.order])
end

allocates_output(::Transpose) = true

(t::Transpose)(x) = permutedims(x, t.order)

"""
ONNX's Slice: (x, starts, ends), and optionally axes and steps. It clamps as Python's slices do, and slices the first axes
if none are given. Throws `ArgumentError` for a step of 0.
"""
struct Slice end

function (s::Slice)(@nospecialize(x), starts, ends, axes=nothing, steps=nothing)
    sizes = shape_of(x)
    strides, offset = contiguous_strides(sizes), 0
    for i in eachindex(starts)
        d = dimension(x, axes === nothing ? i - 1 : axes[i])
        n, step = size(x, d), steps === nothing ? 1 : steps[i]
        step == 0 && throw(ArgumentError("a slice with steps of 0"))
        from_front(at) = at < 0 ? at + n : at
        start = clamp(from_front(starts[i]), 0, step > 0 ? n : n - 1)
        stop = step > 0 ? clamp(from_front(ends[i]), 0, n) : clamp(from_front(ends[i]), -1, n - 1)
        sizes[d] = clamp(cld(stop - start, step), 0, n)
        offset += start * strides[d]
        strides[d] *= step
    end
    return copy_strided(x, sizes, strides, offset)
end

"""
ONNX's Gather: (x, indices). The elements at `indices` along `axis`, whose dimension is replaced by those of `indices`.
Negative indices count from the end. Throws `DimensionMismatch` if an index is out of range.
"""
struct Gather
    axis::Int
end

function (g::Gather)(@nospecialize(x), @nospecialize(indices))
    sizes, d = shape_of(x), dimension(x, g.axis)
    n, inner, outer = sizes[d], prod(sizes[1:d-1]), prod(sizes[d+1:end])
    y = similar(x, Tuple([sizes[1:d-1]; shape_of(indices); sizes[d+1:end]]))
    for (k, i) in enumerate(vec(indices))
        -n <= i < n || throw(DimensionMismatch("there is no element $i among $n"))
        copy_blocks!(vec(y), (k - 1) * inner, length(indices) * inner, vec(x), mod(i, n) * inner, n * inner, inner, outer)
    end
    return y
end

"""
ONNX's GatherND: (x, indices). The last axis of `indices` has index tuples; each selects a block of `x`. The first `batches`
axes of both are batches. Throws `DimensionMismatch` if shapes do not fit or an index is out of range.
"""
struct GatherND
    batches::Int
end

function (g::GatherND)(@nospecialize(x), @nospecialize(indices))
    sizes, places, tuple = shape_of(x), shape_of(indices), size(indices, 1)
    named = length(sizes) - g.batches
    rest = named - tuple
    rest >= 0 && sizes[named+1:end] == places[end-g.batches+1:end] ||
        throw(DimensionMismatch("indices of shape $(reverse(places)) do not fit a tensor of shape $(reverse(sizes))"))
    y = similar(x, Tuple([sizes[1:rest]; places[2:end]]))
    blocks = prod(sizes[named+1:end])
    gather_nd!(vec(y), vec(x), reshape(indices, tuple, :, blocks), reverse(sizes[rest+1:named]), prod(sizes[1:rest]))
    return y
end

"Copy the block of `inner` elements for each index tuple. `named` are the sizes of the indexed axes, outermost first."
function gather_nd!(y, x, indices, named, inner)
    to = 1
    for block in axes(indices, 3), pick in axes(indices, 2)
        from = block - 1
        for (k, n) in enumerate(named)
            i = indices[k, pick, block]
            -n <= i < n || throw(DimensionMismatch("there is no element $i among $n"))
            from = from * n + mod(i, n)
        end
        copyto!(y, to, x, from * inner + 1, inner)
        to += inner
    end
    return nothing
end

"ONNX's Expand: (x, shape) broadcast to the common shape."
struct Expand end

(e::Expand)(x, shape) = broadcast_to(x, broadcast_sizes(shape_of(x), Int[n for n in reverse(shape)]))

"ONNX's Tile: (x, repeats)."
struct Tile end

function (t::Tile)(x, repeats)
    length(repeats) == ndims(x) ||
        throw(DimensionMismatch("$(length(repeats)) repeats for a tensor of $(ndims(x)) dimensions"))
    times = reverse(repeats)
    sizes = Int[isodd(k) ? size(x, cld(k, 2)) : times[k÷2] for k in 1:2ndims(x)]
    steps = Int[isodd(k) ? stride(x, cld(k, 2)) : 0 for k in 1:2ndims(x)]
    return reshape(copy_strided(x, sizes, steps), Tuple(Int[size(x, d) * times[d] for d in 1:ndims(x)]))
end

"ONNX's ConstantOfShape: (shape) to an array filled with `value`."
struct ConstantOfShape{T}
    value::T
end

(f::ConstantOfShape)(shape) = fill(f.value, Tuple(Int[n for n in reverse(shape)]))

"ONNX's Shape: the sizes of the axes from `start` to before `stop`, which may be negative as in Python's slices."
struct ShapeOf
    start::Int
    stop::Int
end

(s::ShapeOf)(x) = Slice()(Int64[n for n in reverse(shape_of(x))], [s.start], [s.stop])

"ONNX's Size."
element_count(x) = fill(Int64(length(x)))

"ONNX's Range: numbers from `start` to before `limit` in steps of `delta`. All three are arrays of one number."
function onnx_range(start, limit, delta)
    from, step = first(start), first(delta)
    count = max(0, ceil(Int, (first(limit) - from) / step))
    return [from + i * step for i in 0:count-1]
end
