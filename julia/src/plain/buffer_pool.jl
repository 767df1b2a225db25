# Arrays that are used again. New memory costs more than most layers: the system maps its pages one by one, and none of it is in the cache.

"Arrays whose numbers nobody needs any more, too few to need an index; and the size of the input that they were made for."
const POOL = Vector{Float32}[]
const POOL_INPUT_SIZE = Ref{Tuple}(())

"An array of such a size with any numbers in it: a spare one, if there is one."
function acquire(sizes::NTuple{N,Int}) where {N}
    numbers = 1  # prod is called with boxed numbers by a package on Julia 1.5
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

"Make `x`, which [`blank`](@ref) gave, a spare array. Nothing may read it any more."
function release!(x::Array{Float32})
    push!(POOL, vec(x))
    return nothing
end

release!(x) = nothing  # Only Float32 is kept: the few other arrays are small.

"Forget the spare arrays, unless they were made for an input of this size: others would lie there for nothing."
function reset_pool_for!(sizes)
    POOL_INPUT_SIZE[] == sizes || empty!(POOL)
    POOL_INPUT_SIZE[] = sizes
    return nothing
end

"""
    makes_new(layer)

Whether all that the layer returns is one array that [`blank`](@ref) gave it, and that it keeps nothing of its inputs.
"""
allocates_output(layer) = false
