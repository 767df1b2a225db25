# Work divided among Julia's threads: unlike those of OpenBLAS they share all of a layer's work, not the products alone.

"Leave the products of matrices, too, to Julia's threads, where there are several."
use_threads() = Threads.nthreads() > 1 && BLAS.set_num_threads(1)

"""
    in_parts(f, n, cost)

Call `f(part, items)` for as many parts of the items 1 to `n` as there are threads, at the same time; `part` counts
from 1. What the parts write must not overlap. `cost` tells roughly how many multiplications all of it takes: a thread
is worth waking for many only.
"""
function in_parts(@nospecialize(f), n, cost)
    n == 0 && return nothing
    parts = min(n, parts_worth(cost))
    while length(SCRATCH) < parts
        push!(SCRATCH, Float32[])
    end
    # What no other thread has begun, this one does while it waits: on a busy machine the others come late.
    others = Task[Threads.@spawn(f(part, part_of(n, parts, part) .+ 1)) for part in 2:parts]
    try
        f(1, part_of(n, parts, 1) .+ 1)
    finally
        # They write to the buffers that the next call uses.
        foreach(wait, others)
    end
    return nothing
end

parts_worth(cost) = clamp(cost >> 18, 1, Threads.nthreads())

"How many multiplications a number costs that is read from memory and written to it."
const NUMBER_COST = 8

"The `i`th of `parts` parts of the `n` numbers from 0 on."
part_of(n, parts, i) = (i-1)*n÷parts:i*n÷parts-1

"A buffer for each part."
const SCRATCH = [Float32[]]

"The buffer of `part`, with room for `n` numbers."
scratch(part, n) = length(SCRATCH[part]) < n ? resize!(SCRATCH[part], n) : SCRATCH[part]

"Let go of the buffers and the spare arrays, which grow again as they are needed."
function forget_memory()
    empty!(SCRATCH)
    keep_spares_for!(())
end
