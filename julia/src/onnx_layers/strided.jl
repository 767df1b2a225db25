# Walks through memory in any number of dimensions. They are compiled once, where Julia's broadcasts,
# permutations and slices are compiled for each number of dimensions: that is time to the first answer. For
# the same reason sizes are vectors here, loops see arrays as vectors, and the rest is not specialised.

"""
    Walk(sizes, a, b)

Every position of an array of `sizes`, for two arrays that go `a` and `b` elements further in each
dimension. Dimensions that both go through in one are merged; the first is the run that loops go along.
"""
struct StridedLoop
    sizes::Vector{Int}
    a_strides::Vector{Int}
    b_strides::Vector{Int}
    function StridedLoop(sizes, a_strides, b_strides)
        w = new(Int[], Int[], Int[])
        for d in eachindex(sizes)
            sizes[d] == 1 && continue
            k = length(w.sizes)
            if k > 0 && w.a_strides[k] * w.sizes[k] == a_strides[d] && w.b_strides[k] * w.sizes[k] == b_strides[d]
                w.sizes[k] *= sizes[d]
            else
                push!(w.sizes, sizes[d]); push!(w.a_strides, a_strides[d]); push!(w.b_strides, b_strides[d])
            end
        end
        isempty(w.sizes) && (push!(w.sizes, 1); push!(w.a_strides, 1); push!(w.b_strides, 1))
        return w
    end
end

"How many runs there are."
run_count(w::StridedLoop, along=1) = prod(w.sizes[along+1:end])

"""
Call `f` for each run: with the number of runs before it, and the offsets (from 0) at which it begins in either
array. A run goes along the first dimension, or the first `along`. `runs` are the numbers of those wanted, from 0.
"""
function foreach_run(f::F, w::StridedLoop, along=1, runs=0:run_count(w, along)-1) where {F}
    any(iszero, w.sizes) && return nothing
    at, i, j, before = zeros(Int, length(w.sizes)), 0, 0, first(runs)
    for d in along+1:length(at)
        before, at[d] = divrem(before, w.sizes[d])
        i += w.a_strides[d] * at[d]
        j += w.b_strides[d] * at[d]
    end
    for run in runs
        f(run, i, j)
        for d in along+1:length(at)
            at[d] += 1
            i += w.a_strides[d]
            j += w.b_strides[d]
            at[d] < w.sizes[d] && break
            i -= w.a_strides[d] * at[d]
            j -= w.b_strides[d] * at[d]
            at[d] = 0
        end
    end
    return nothing
end

shape_of(@nospecialize(x)) = Int[size(x, d) for d in 1:ndims(x)]

"How many elements apart neighbours are, in each dimension of an array of `sizes`."
function contiguous_strides(sizes)
    strides, next = Int[], 1
    for n in sizes
        push!(strides, next)
        next *= n
    end
    return strides
end

"The same for an array of `sizes` that is broadcast to `wanted`: it stays where it has but one element."
function broadcast_strides(sizes::Vector{Int}, wanted::Vector{Int})
    strides = contiguous_strides(sizes)
    return Int[d <= length(sizes) && sizes[d] != 1 ? strides[d] : 0 for d in eachindex(wanted)]
end

"The sizes that arrays of sizes `a` and `b` are broadcast to."
function broadcast_sizes(a::Vector{Int}, b::Vector{Int})
    return Int[broadcast_length(get(a, d, 1), get(b, d, 1), a, b) for d in 1:max(length(a), length(b))]
end

function broadcast_length(p, q, a, b)
    p == q || q == 1 ? p : p == 1 ? q :
        throw(DimensionMismatch("shapes $(Tuple(reverse(a))) and $(Tuple(reverse(b))) cannot be broadcast"))
end

"""
A new array of `sizes`: the elements of `x` from `offset` (from 0) on, `steps` apart in each dimension.
"""
function copy_strided(@nospecialize(x::Array), sizes::Vector{Int}, strides::Vector{Int}, offset::Int=0)
    y = Array{eltype(x)}(undef, Tuple(sizes))
    copy_strided!(vec(y), vec(x), StridedLoop(sizes, strides, contiguous_strides(sizes)), offset)
    return y
end

function copy_strided!(y, x, w, offset)
    length(w.sizes) >= 2 && w.a_strides[2] == 1 && return copy_tiled!(y, x, w, offset)
    n, stride = w.sizes[1], w.a_strides[1]
    foreach_run(w) do _, i, j
        if stride == 1
            copyto!(y, j + 1, x, offset + i + 1, n)
        else
            @inbounds @simd for l in 0:n-1
                y[j+l+1] = x[offset+i+stride*l+1]
            end
        end
    end
    return nothing
end

const TILE_SIZE = 16

"`pick!` where neighbours in `x` come to lie apart: tile by tile, so that what the cache has of either is used."
function copy_tiled!(y, x, w, offset)
    m, n, x_step, y_step = w.sizes[1], w.sizes[2], w.a_strides[1], w.b_strides[2]
    foreach_run(w, 2) do _, i, j
        for column in 0:TILE_SIZE:n-1, row in 0:TILE_SIZE:m-1
            for c in column:min(column + TILE_SIZE, n)-1
                @inbounds @simd for r in row:min(row + TILE_SIZE, m)-1
                    y[j+c*y_step+r+1] = x[offset+i+r*x_step+c+1]
                end
            end
        end
    end
    return nothing
end

"`x` repeated along dimensions of size 1 up to `sizes`."
function broadcast_to(@nospecialize(x), sizes::Vector{Int})
    return shape_of(x) == sizes ? x : copy_strided(x, sizes, broadcast_strides(shape_of(x), sizes))
end
