# Work divided among Julia's threads: unlike those of OpenBLAS they share all of a layer's work, not the products alone.

"Leave the products of matrices, too, to Julia's threads, where there are several."
use_threads() = Threads.nthreads() > 1 && BLAS.set_num_threads(1)

"Work in parts, and how many of them have been begun, and done."
mutable struct Job
    body::Any
    items::Int
    chunks::Int
    started::Threads.Atomic{Int}
    done::Threads.Atomic{Int}
    failure::Any
    Job(body, items, chunks) = new(body, items, chunks, Threads.Atomic{Int}(0), Threads.Atomic{Int}(0), nothing)
end

"What there is to do at present; `nothing` between layers."
const CURRENT_JOB = Ref{Union{Job,Nothing}}(nothing)

"The tasks that work on it beside the one that has it to do."
const HELPER_TASKS = Task[]

"How many parts a thread has: few enough that each is worth beginning, and enough that all threads end at about the same time."
const CHUNKS_PER_THREAD = 4

"""
    in_parts(f, n, cost)

Call `f(seat, items)` for parts of the items 1 to `n`, as many at the same time as there are threads; `seat` counts
from 1 and differs among these. What the parts write must not overlap. `cost` tells roughly how many multiplications all
of it takes: other threads are worth their while for many only.

Who is free takes the next part: on a busy machine, where other threads come late, nobody waits for what none has begun.
"""
function parallel_for(@nospecialize(f), n, cost)
    n == 0 && return nothing
    threads = min(n, threads_worth(cost))
    # A helper may come from a job that was worth more threads.
    while length(WORKSPACES) < Threads.nthreads()
        push!(WORKSPACES, Float32[])
    end
    if threads == 1
        f(1, 1:n)
        return nothing
    end
    job = Job(f, n, min(n, CHUNKS_PER_THREAD * threads))
    Threads.atomic_fence()
    CURRENT_JOB[] = job
    for i in 1:threads-1
        if i > length(HELPER_TASKS)
            push!(HELPER_TASKS, Threads.@spawn helper_loop(i + 1))
        elseif istaskdone(HELPER_TASKS[i])
            HELPER_TASKS[i] = Threads.@spawn helper_loop(i + 1)
        end
    end
    run_chunks(job, 1)
    # What others have begun writes to the buffers that the next job uses, even if a part has failed.
    iterations = 0
    while job.done[] < job.chunks
        backoff(iterations += 1)
    end
    CURRENT_JOB[] = nothing
    job.failure === nothing || throw(job.failure)
    return nothing
end

"Work on parts that nobody has begun, while there are any."
function run_chunks(job, task)
    while (chunk = Threads.atomic_add!(job.started, 1) + 1) <= job.chunks
        try
            job.body(task, chunk_range(job.items, job.chunks, chunk) .+ 1)
        catch e
            job.failure = e
        end
        Threads.atomic_add!(job.done, 1)
    end
    return nothing
end

"Take parts of one job after the other, until there was none for so long that the next picture will be worth a new task."
function helper_loop(task)
    iterations = 0
    while iterations < SPIN_ITERATIONS + SLEEP_ITERATIONS
        job = CURRENT_JOB[]
        if job !== nothing && job.started[] < job.chunks
            # Where the job's code is newer than this task.
            Base.invokelatest(run_chunks, job, task)
            iterations = 0
        end
        backoff(iterations += 1)
    end
end

"Some 150 microseconds: most layers that are divided follow each other faster than that, and to be woken takes as long."
const SPIN_ITERATIONS = 6000

"Some 5 milliseconds."
const SLEEP_ITERATIONS = 50

"""
Let a moment pass, the `turns`th in a row, in which other threads may collect garbage. Spinning would in the long run take
the processor from the very thread that is waited for, where another process has the others.
"""
function backoff(iterations)
    iterations > SPIN_ITERATIONS ? Libc.systemsleep(5.0e-5) : ccall(:jl_cpu_pause, Cvoid, ())
    GC.safepoint()
    return nothing
end

threads_worth(cost) = WARMED_UP[] ? clamp(cost >> 18, 1, Threads.nthreads()) : 1

"""
Whether a forward pass has been made, by which most code is compiled. It is left to one thread: the others would spin until
they may compile the same code, too.
"""
const WARMED_UP = Ref(false)

"How many multiplications a number costs that is read from memory and written to it."
const ELEMENT_COST = 8

"The `i`th of `parts` parts of the `n` numbers from 0 on."
chunk_range(n, chunks, i) = (i-1)*n÷chunks:i*n÷chunks-1

"A buffer for each seat."
const WORKSPACES = [Float32[]]

"The buffer of `seat`, with room for `n` numbers."
workspace(task, n) = length(WORKSPACES[task]) < n ? resize!(WORKSPACES[task], n) : WORKSPACES[task]

"Let go of the buffers and the spare arrays, which grow again as they are needed, as in a process that has just begun."
function empty_buffers!()
    empty!(WORKSPACES)
    WARMED_UP[] = false
    reset_pool_for!(())
end
