# The buffer pool: arrays of earlier results that are used again. A new array costs more than most layers, because the
# operating system maps its memory page by page and none of it is in the cache. Not safe for concurrent use.

# The free arrays, and the size of the model input that they were allocated for. They are too few to need an index.
const POOL = Vector{Float32}[]
const POOL_INPUT_SIZE = Ref{Tuple}(())

"Held during a forward pass where several tasks may run models."
const POOL_LOCK = ReentrantLock()

"""
    acquire(sizes) -> Array{Float32}

Return an array with undefined contents: a free array of as many elements if the pool has one, or a new one.
"""
function acquire(sizes::NTuple{N,Int}) where {N}
    numbers = 1  # not prod: called from a precompiled package, it boxes its numbers on Julia 1.5 (JuliaLang/julia#35972)
    for size in sizes
        numbers *= size
    end
    for i in length(POOL):-1:1
        if length(POOL[i]) == numbers
            POOL[i], POOL[end] = POOL[end], POOL[i]
            return reshape(pop!(POOL), sizes)
        end
    end
    return Array{Float32,N}(undef, sizes)
end

"""
    release!(x)

Put an array from [`acquire`](@ref) back into the pool. The caller guarantees that nothing reads it any more. Anything but
an `Array{Float32}` is ignored: there are few of these, and they are small.
"""
function release!(x::Array{Float32})
    push!(POOL, vec(x))
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
