# The buffer pool: arrays of earlier results that are used again. A new array costs more than most layers, because the
# operating system maps its memory page by page and none of it is in the cache. Not safe for concurrent use.

# The free arrays, and the size of the model input that they were allocated for. They are too few to need an index.
const POOL = Vector{Float32}[]
const POOL_INPUT_SIZE = Ref{Tuple}(())

"Held during a forward pass where several tasks may run models."
const POOL_LOCK = ReentrantLock()

"""
    acquire(sizes) -> Array{Float32}

Return an array with undefined contents: one of the pool's, or a new one. Within [`lend_arrays`](@ref) it may be the beginning of a
larger one.
"""
function acquire(sizes::NTuple{N,Int}) where {N}
    numbers = 1  # not prod: called from a precompiled package, it boxes its numbers on Julia 1.5 (JuliaLang/julia#35972)
    for size in sizes
        numbers *= size
    end
    most = LENDING[] ? MOST_SPARE * numbers : numbers
    best = 0
    for i in length(POOL):-1:1
        n = length(POOL[i])
        numbers <= n <= most && (best == 0 || n < length(POOL[best])) && (best = i)
    end
    LENDING[] && numbers > 0 || return best == 0 ? Array{Float32,N}(undef, sizes) : reshape(take_free!(best), sizes)
    x = best == 0 ? Vector{Float32}(undef, numbers) : take_free!(best)
    LENT[pointer(x)] = x
    return unsafe_wrap(Array, pointer(x), sizes)
end

"Take free array number `i` out of the pool."
function take_free!(i)
    POOL[i], POOL[end] = POOL[end], POOL[i]
    return pop!(POOL)
end

"The arrays of the pool that are in use, by their addresses, while [`lend_arrays`](@ref) runs."
const LENT = Dict{Ptr{Float32},Vector{Float32}}()
const LENDING = Ref(false)

"How many times as large as it has to be an array of the pool may be."
const MOST_SPARE = 8

"""
    lend_arrays(f)

Return the array that `f()` returns, or a copy of it if it is one that `f` acquired. Whatever else `f` acquires must not be read once it has
returned, as all of that goes back to the pool then. So it can be the memory of larger arrays: there are fewer of those, and they
are more often in the cache.
"""
function lend_arrays(f)
    LENDING[] = true
    try
        y = f()
        return haskey(LENT, pointer(y)) ? copy(y) : y
    finally
        LENDING[] = false
        append!(POOL, values(LENT))
        empty!(LENT)
    end
end

"""
    release!(x)

Put an array from [`acquire`](@ref) back into the pool. The caller guarantees that nothing reads it any more. Anything but
an `Array{Float32}` is ignored: there are few of these, and they are small.
"""
function release!(x::Array{Float32})
    push!(POOL, haskey(LENT, pointer(x)) ? pop!(LENT, pointer(x)) : vec(x))
    return nothing
end

release!(x) = nothing

"Empty the pool unless it was filled for an input of size `sizes`: arrays of other sizes would never be used again."
function reset_pool_for!(sizes)
    POOL_INPUT_SIZE[] == sizes || empty!(POOL)
    POOL_INPUT_SIZE[] = sizes
    return nothing
end

"""
    allocates_output(layer) -> Bool

Whether the layer's output is one array from [`acquire`](@ref), and shares memory with none of the inputs.
"""
allocates_output(layer) = false

"""
    reshapes_input(layer) -> Bool

Whether the layer's output is its first input in another shape, in the same memory.
"""
reshapes_input(layer) = false
