# Strided loops over arrays of any number of dimensions: broadcasting, permuting, slicing.
#
# Julia compiles its own functions for these anew for each number of dimensions (for permutedims see
# JuliaLang/julia#42438), which delays the first answer. The loops here are compiled once: sizes and strides are vectors
# of integers, arrays are passed as vectors, and the functions around the loops are not specialised.

"""
    StridedLoop(sizes, a_strides, b_strides)

A loop over all positions of an array of `sizes`, for two arrays with a stride for each dimension. Strides are numbers of
elements; 0 broadcasts.

Dimensions of size 1 are dropped, and those that are contiguous in both arrays are merged. A run is the loop along the
first dimension that remains.
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

"The number of runs; `along` is the number of dimensions that a run has."
run_count(w::StridedLoop, along=1) = prod(w.sizes[along+1:end])

"""
    foreach_run(f, w, along=1, runs=all)

Call `f(run, i, j)` for the runs with the numbers `runs`, from 0. `i` and `j` are the offsets, from 0, at which the run
begins in the two arrays. A run has the first `along` dimensions.
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

"The size of `x` as a vector."
shape_of(@nospecialize(x)) = Int[size(x, d) for d in 1:ndims(x)]

"The strides of a contiguous array of `sizes`."
function contiguous_strides(sizes)
    strides, next = Int[], 1
    for n in sizes
        push!(strides, next)
        next *= n
    end
    return strides
end

"The strides of a contiguous array of `sizes` that is broadcast to `wanted`: 0 in the dimensions of size 1."
function broadcast_strides(sizes::Vector{Int}, wanted::Vector{Int})
    strides = contiguous_strides(sizes)
    return Int[d <= length(sizes) && sizes[d] != 1 ? strides[d] : 0 for d in eachindex(wanted)]
end

"The size that arrays of sizes `a` and `b` are broadcast to. Throws `DimensionMismatch` if they cannot be."
function broadcast_sizes(a::Vector{Int}, b::Vector{Int})
    return Int[broadcast_length(get(a, d, 1), get(b, d, 1), a, b) for d in 1:max(length(a), length(b))]
end

function broadcast_length(p, q, a, b)
    p == q || q == 1 ? p : p == 1 ? q :
        throw(DimensionMismatch("shapes $(Tuple(reverse(a))) and $(Tuple(reverse(b))) cannot be broadcast"))
end

"""
    copy_strided(x, sizes, strides, offset=0)

A new array of `sizes`, read from `x`: its first element is at `offset`, from 0, and neighbours in dimension `d` are
`strides[d]` elements apart.
"""
function copy_strided(@nospecialize(x::Array), sizes::Vector{Int}, strides::Vector{Int}, offset::Int=0)
    y = uninitialised(eltype(x), Tuple(sizes))
    copy_strided!(vec(y), vec(x), StridedLoop(sizes, strides, contiguous_strides(sizes)), offset)
    return y
end

"Copy `x`, from `offset` on and with the strides `a_strides`, to the contiguous `y`."
function copy_strided!(y, x, w, offset)
    length(w.sizes) >= 2 && w.a_strides[2] == 1 && return copy_tiled!(y, x, w, offset)
    n, stride = w.sizes[1], w.a_strides[1]
    parallel_for(run_count(w), ELEMENT_COST * length(y)) do _, runs
        foreach_run(w, 1, runs .- 1) do _, i, j
            if stride == 1
                copy_elements!(y, j + 1, x, offset + i + 1, n)
            else
                @inbounds @simd for l in 0:n-1
                    y[j+l+1] = x[offset+i+stride*l+1]
                end
            end
        end
    end
    return nothing
end

"The rows and columns of a tile in [`copy_tiled!`](@ref)."
const TILE_SIZE = 16

"""
    copy_tiled!(y, x, w, offset)

[`copy_strided!`](@ref) for a transposition. It goes tile by tile, so that each cache line is used completely while it is
in the cache.
"""
function copy_tiled!(y, x, w, offset)
    m, n, x_step, y_step = w.sizes[1], w.sizes[2], w.a_strides[1], w.b_strides[2]
    parallel_for(run_count(w, 2), ELEMENT_COST * length(y)) do _, runs
        foreach_run(w, 2, runs .- 1) do _, i, j
            copy_transposed!(y, j, y_step, x, offset + i, x_step, m, n)
        end
    end
    return nothing
end

"Store the `m` by `n` matrix in `y` whose columns are `x_step` numbers apart in `x`. Offsets count from 0."
copy_transposed!(y, to, y_step, x, from, x_step, m, n) = copy_tiles!(y, to, y_step, x, from, x_step, m, n)

function copy_tiles!(y, to, y_step, x, from, x_step, m, n)
    for column in 0:TILE_SIZE:n-1, row in 0:TILE_SIZE:m-1, c in column:min(column + TILE_SIZE, n)-1
        @inbounds @simd for r in row:min(row + TILE_SIZE, m)-1
            y[to+c*y_step+r+1] = x[from+r*x_step+c+1]
        end
    end
    return nothing
end

function copy_transposed!(y::Vector{Float32}, to, y_step, x::Vector{Float32}, from, x_step, m, n)
    (m < 8 || n < 8) && return copy_tiles!(y, to, y_step, x, from, x_step, m, n)
    GC.@preserve x y for column in 0:TILE_SIZE:n-1, row in 0:8:m-1, c in column:8:min(column + TILE_SIZE, n)-1
        # The last tiles overlap with those before them.
        r, c = min(row, m - 8), min(c, n - 8)
        transpose_eight!(pointer(y, to + c * y_step + r + 1), y_step, pointer(x, from + r * x_step + c + 1), x_step)
    end
    return nothing
end

"`x` broadcast to `sizes`. Returns `x` itself if it has them."
function broadcast_to(@nospecialize(x), sizes::Vector{Int})
    return shape_of(x) == sizes ? x : copy_strided(x, sizes, broadcast_strides(shape_of(x), sizes))
end
