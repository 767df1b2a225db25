# Elements that are picked and replaced by their indices: GatherElements, ScatterElements, ScatterND and TopK.

export GatherElements, ScatterElements, ScatterND, TopK

"""
ONNX's GatherElements: (x, indices). Each element of the result is that of `x` at the same place, but for the coordinate
along `axis`, which `indices` has there. Negative indices count from the end. Throws `DimensionMismatch` if shapes do not
fit or an index is out of range.
"""
struct GatherElements
    axis::Int
end

function (g::GatherElements)(@nospecialize(x), @nospecialize(indices))
    y = Array{eltype(x)}(undef, size(indices))
    gather_elements!(vec(y), vec(x), vec(indices), IndexedPlaces(x, indices, g.axis))
    return y
end

"""
    IndexedPlaces(x, indices, axis)

The places in `x` that `indices` select along `axis`. `loop` goes over all of `indices`, and, with the coordinate along
the axis 0, over `x`. The axis has `size` elements, which are `step` apart. Throws `DimensionMismatch` if shapes do not
fit.
"""
struct IndexedPlaces
    loop::StridedLoop
    size::Int
    step::Int
end

function IndexedPlaces(@nospecialize(x), @nospecialize(indices), axis::Int)
    sizes, wanted, d = shape_of(x), shape_of(indices), dimension(x, axis)
    length(wanted) == length(sizes) && all(k -> k == d || wanted[k] <= sizes[k], eachindex(sizes)) ||
        throw(DimensionMismatch("indices of shape $(reverse(size(indices))) for a tensor of shape $(reverse(size(x)))"))
    steps = contiguous_strides(sizes)
    loop = StridedLoop(wanted, Int[k == d ? 0 : steps[k] for k in eachindex(steps)], contiguous_strides(wanted))
    return IndexedPlaces(loop, sizes[d], steps[d])
end

"Call `f(place, k)` for the place in the tensor, from 1, that the `k`th index selects."
function foreach_place(f::F, indices, p::IndexedPlaces) where {F}
    n, step = p.loop.sizes[1], p.loop.a_strides[1]
    foreach_run(p.loop) do _, i, j
        for l in 0:n-1
            f(i + l * step + from_start(indices[j+l+1], p.size) * p.step + 1, j + l + 1)
        end
    end
    return nothing
end

"The index among `n` elements, from 0, that ONNX's index `i` means. Throws `DimensionMismatch` if there is none."
function from_start(i, n)
    -n <= i < n || throw(DimensionMismatch("there is no element $i among $n"))
    return Int(mod(i, n))
end

gather_elements!(y, x, indices, places) = foreach_place((place, k) -> y[k] = x[place], indices, places)

"""
    ScatterElements(reduce, axis)

ONNX's ScatterElements: (x, indices, updates). A copy of `x`, in which `reduce(old, update)` is at the places that
[`GatherElements`](@ref) would read. Throws as it does.
"""
struct ScatterElements{F}
    reduce::F
    axis::Int
end

function (s::ScatterElements)(@nospecialize(x), @nospecialize(indices), @nospecialize(updates))
    size(updates) == size(indices) || throw(DimensionMismatch("$(size(updates)) updates at $(size(indices)) places"))
    y = copy(x)
    scatter_elements!(vec(y), s.reduce, vec(indices), vec(updates), IndexedPlaces(x, indices, s.axis))
    return y
end

scatter_elements!(y, reduce::F, indices, updates, places) where {F} =
    foreach_place((place, k) -> y[place] = reduce(y[place], updates[k]), indices, places)

"The `reduce` of a scatter that replaces elements."
replacement(old, update) = update

"""
    ScatterND(reduce)

ONNX's ScatterND: (x, indices, updates). A copy of `x`. The last axis of `indices` has index tuples; in the block that each
selects are `reduce(old, update)`. Throws `DimensionMismatch` if shapes do not fit or an index is out of range.
"""
struct ScatterND{F}
    reduce::F
end

function (s::ScatterND)(@nospecialize(x), @nospecialize(indices), @nospecialize(updates))
    sizes, tuple = shape_of(x), size(indices, 1)
    rest = length(sizes) - tuple
    rest >= 0 && shape_of(updates) == [sizes[1:rest]; shape_of(indices)[2:end]] || throw(DimensionMismatch(
        "updates of shape $(reverse(size(updates))) at indices of shape $(reverse(size(indices))) for a tensor of shape $(reverse(size(x)))"))
    y = copy(x)
    scatter_nd!(vec(y), s.reduce, reshape(indices, tuple, :), vec(updates), reverse(sizes[rest+1:end]), prod(sizes[1:rest]))
    return y
end

"Change the block of `inner` elements for each index tuple. `named` are the sizes of the indexed axes, outermost first."
function scatter_nd!(y, reduce::F, indices, updates, named, inner) where {F}
    for pick in axes(indices, 2)
        at = 0
        for (k, n) in enumerate(named)
            at = at * n + from_start(indices[k, pick], n)
        end
        for l in 1:inner
            y[at*inner+l] = reduce(y[at*inner+l], updates[(pick-1)*inner+l])
        end
    end
    return nothing
end

"""
    TopK(axis, largest, outputs)

ONNX's TopK: (x, k). The `k` largest or smallest elements along `axis`, in order, and their indices from 0; of equal ones the
first come first. With one of its `outputs` read, only the elements. Throws `DimensionMismatch` if there are fewer than
`k`.
"""
struct TopK
    axis::Int
    largest::Bool
    outputs::Int
end

function (t::TopK)(@nospecialize(x), k)
    sizes, d, count = shape_of(x), dimension(x, t.axis), Int(first(k))
    0 <= count <= sizes[d] || throw(DimensionMismatch("the first $count of $(sizes[d]) elements"))
    sizes[d] = count
    y, places = Array{eltype(x)}(undef, Tuple(sizes)), Array{Int64}(undef, Tuple(sizes))
    top_k!(flatten_around(y, d), flatten_around(places, d), flatten_around(x, d), t.largest)
    return t.outputs == 1 ? y : (y, places)
end

function top_k!(y, places, x, largest)
    count = size(y, 2)
    for outer in axes(x, 3), inner in axes(x, 1)
        line = x[inner, :, outer]
        order = partialsortperm(line, 1:count; rev=largest)
        for (k, i) in enumerate(order)
            y[inner, k, outer] = line[i]
            places[inner, k, outer] = i - 1
        end
    end
    return nothing
end
