# Work divided among Julia's threads: unlike those of OpenBLAS they share all of a layer's work, not the products alone.

"Leave the products of matrices, too, to Julia's threads, where there are several."
use_threads() = Threads.nthreads() > 1 && BLAS.set_num_threads(1)

"Work in parts, and how many of them have been begun, and done."
mutable struct Job
    work::Any
    items::Int
    parts::Int
    begun::Threads.Atomic{Int}
    done::Threads.Atomic{Int}
    failure::Any
    Job(work, items, parts) = new(work, items, parts, Threads.Atomic{Int}(0), Threads.Atomic{Int}(0), nothing)
end

"What there is to do at present; `nothing` between layers."
const JOB = Ref{Union{Job,Nothing}}(nothing)

"The tasks that work on it beside the one that has it to do."
const HELPERS = Task[]

"How many parts a thread has: few enough that each is worth beginning, and enough that all threads end at about the same time."
const PARTS_A_THREAD = 4

"""
    in_parts(f, n, cost)

Call `f(seat, items)` for parts of the items 1 to `n`, as many at the same time as there are threads; `seat` counts
from 1 and differs among these. What the parts write must not overlap. `cost` tells roughly how many multiplications all
of it takes: other threads are worth their while for many only.

Who is free takes the next part: on a busy machine, where other threads come late, nobody waits for what none has begun.
"""
function in_parts(@nospecialize(f), n, cost)
    n == 0 && return nothing
    threads = min(n, parts_worth(cost))
    # A helper may come from a job that was worth more threads.
    while length(SCRATCH) < Threads.nthreads()
        push!(SCRATCH, Float32[])
    end
    if threads == 1
        f(1, 1:n)
        return nothing
    end
    job = Job(f, n, min(n, PARTS_A_THREAD * threads))
    Threads.atomic_fence()
    JOB[] = job
    for i in 1:threads-1
        if i > length(HELPERS)
            push!(HELPERS, Threads.@spawn help(i + 1))
        elseif istaskdone(HELPERS[i])
            HELPERS[i] = Threads.@spawn help(i + 1)
        end
    end
    take_parts(job, 1)
    # What others have begun writes to the buffers that the next job uses, even if a part has failed.
    turns = 0
    while job.done[] < job.parts
        wait_a_turn(turns += 1)
    end
    JOB[] = nothing
    job.failure === nothing || throw(job.failure)
    return nothing
end

"Work on parts that nobody has begun, while there are any."
function take_parts(job, seat)
    while (part = Threads.atomic_add!(job.begun, 1) + 1) <= job.parts
        try
            job.work(seat, part_of(job.items, job.parts, part) .+ 1)
        catch e
            job.failure = e
        end
        Threads.atomic_add!(job.done, 1)
    end
    return nothing
end

"Take parts of one job after the other, until there was none for so long that the next picture will be worth a new task."
function help(seat)
    turns = 0
    while turns < SPINNING_TURNS + SLEEPING_TURNS
        job = JOB[]
        if job !== nothing && job.begun[] < job.parts
            # Where the job's code is newer than this task.
            Base.invokelatest(take_parts, job, seat)
            turns = 0
        end
        wait_a_turn(turns += 1)
    end
end

"Some 150 microseconds: most layers that are divided follow each other faster than that, and to be woken takes as long."
const SPINNING_TURNS = 6000

"Some 5 milliseconds."
const SLEEPING_TURNS = 50

"""
Let a moment pass, the `turns`th in a row, in which other threads may collect garbage. Spinning would in the long run take
the processor from the very thread that is waited for, where another process has the others.
"""
function wait_a_turn(turns)
    turns > SPINNING_TURNS ? Libc.systemsleep(5.0e-5) : ccall(:jl_cpu_pause, Cvoid, ())
    GC.safepoint()
    return nothing
end

parts_worth(cost) = COMPILED[] ? clamp(cost >> 18, 1, Threads.nthreads()) : 1

"""
Whether a forward pass has been made, by which most code is compiled. It is left to one thread: the others would spin until
they may compile the same code, too.
"""
const COMPILED = Ref(false)

"How many multiplications a number costs that is read from memory and written to it."
const NUMBER_COST = 8

"The `i`th of `parts` parts of the `n` numbers from 0 on."
part_of(n, parts, i) = (i-1)*n÷parts:i*n÷parts-1

"A buffer for each seat."
const SCRATCH = [Float32[]]

"The buffer of `seat`, with room for `n` numbers."
scratch(seat, n) = length(SCRATCH[seat]) < n ? resize!(SCRATCH[seat], n) : SCRATCH[seat]

"Let go of the buffers and the spare arrays, which grow again as they are needed, as in a process that has just begun."
function forget_memory()
    empty!(SCRATCH)
    COMPILED[] = false
    keep_spares_for!(())
end
