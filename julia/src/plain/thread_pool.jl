# The thread pool: it runs chunks of a layer's work on all of Julia's threads. OpenBLAS's own threads would share only
# the matrix products that it computes.

"Limit OpenBLAS to one thread if Julia has several, so that only the thread pool divides work."
use_threads() = Threads.nthreads() > 1 && BLAS.set_num_threads(1)

"Call `f` while OpenBLAS has one thread if Julia has several. Before Julia 1.6, which cannot tell their number, call it."
function with_one_blas_thread(f)
    VERSION >= v"1.6" && Threads.nthreads() > 1 || return f()
    threads = BLAS.get_num_threads()
    threads == 1 && return f()
    BLAS.set_num_threads(1)
    try
        return f()
    finally
        BLAS.set_num_threads(threads)
    end
end

"""
Work in chunks. `started` and `done` count the chunks that a task has taken and finished. `failure` is the last exception
of a chunk, or `nothing`.
"""
mutable struct Job
    body::Any
    items::Int
    chunks::Int
    started::Threads.Atomic{Int}
    done::Threads.Atomic{Int}
    failure::Any
    Job(body, items, chunks) = new(body, items, chunks, Threads.Atomic{Int}(0), Threads.Atomic{Int}(0), nothing)
end

"The job at present, or `nothing` between layers."
const CURRENT_JOB = Ref{Union{Job,Nothing}}(nothing)

"The helper tasks. The task that calls [`parallel_for`](@ref) is task 1, and helper `i` is task `i + 1`."
const HELPER_TASKS = Task[]

"""
Chunks of a job for each thread: few, because each has a cost, but enough for all threads to finish at about the same
time.
"""
const CHUNKS_PER_THREAD = 4

"Those of a job whose items are large, as tiles are."
const MOST_CHUNKS = 16

"""
    parallel_for(f, n, cost, chunks_per_thread=CHUNKS_PER_THREAD)

Call `f(task, items)` for ranges of items that cover `1:n`, on several threads at once. Return when all calls have
ended. If a call throws, throw its exception then.

`task` is an index from 1 to the number of threads that no two concurrent calls share. Calls must not write to the same
memory. `cost` is the number of multiplications of the whole job, roughly: small jobs run on one thread.

A task that is free takes the next chunk. So a thread that the operating system has not scheduled does not delay the others.
Call this from one task at a time. `f` must not wait for another task or a timer: the thread that waits here runs none of
them, nor Julia's event loop.
"""
function parallel_for(@nospecialize(f), n, cost, chunks_per_thread=CHUNKS_PER_THREAD)
    n == 0 && return nothing
    threads = min(n, threads_worth(cost))
    # All of them, as a helper of an earlier job, which was worth more threads, may take a chunk of this one.
    while length(WORKSPACES) < Threads.nthreads()
        push!(WORKSPACES, Float32[])
    end
    if threads == 1
        f(1, 1:n)
        return nothing
    end
    job = Job(f, n, min(n, chunks_per_thread * threads))
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
    # Wait also if a chunk has failed: the other chunks still write to workspaces that the next job will use.
    iterations = 0
    while job.done[] < job.chunks
        backoff(iterations += 1)
    end
    CURRENT_JOB[] = nothing
    job.failure === nothing || throw(job.failure)
    return nothing
end

"Run chunks that no task has taken yet, until there are none left."
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

"""
    helper_loop(task)

The loop of a helper task: run chunks of one job after the other. It ends when there was no job for so long that the cost
of starting a new task for the next picture does not matter.
"""
function helper_loop(task)
    iterations = 0
    while iterations < SPIN_ITERATIONS + SLEEP_ITERATIONS
        job = CURRENT_JOB[]
        if job !== nothing && job.started[] < job.chunks
            # The job's code may be newer than this task.
            Base.invokelatest(run_chunks, job, task)
            iterations = 0
        end
        backoff(iterations += 1)
    end
end

"""
Iterations of [`backoff`](@ref) that spin, about 150 microseconds. Most jobs follow each other faster, and to wake a
sleeping thread takes as long.
"""
const SPIN_ITERATIONS = 6000

"Iterations of [`backoff`](@ref) that sleep after that, about 5 milliseconds."
const SLEEP_ITERATIONS = 50

"""
    backoff(iterations)

Wait for a moment: pause the processor, or sleep for 50 microseconds after `SPIN_ITERATIONS` calls in a row. Garbage
collection may run meanwhile. A thread that only spins can keep the thread that it waits for off the processor, if other
processes have the rest.
"""
function backoff(iterations)
    iterations > SPIN_ITERATIONS ? Libc.systemsleep(5.0e-5) : ccall(:jl_cpu_pause, Cvoid, ())
    GC.safepoint()
    return nothing
end

"How many threads a job of `cost` multiplications is worth."
threads_worth(cost) = WARMED_UP[] ? clamp(cost >> 18, 1, Threads.nthreads()) : 1

"""
Whether a forward pass has been completed. The first pass runs on one thread, because it compiles most of the code: other
threads would only spin until they may compile the same code.
"""
const WARMED_UP = Ref(false)

"The cost of reading a number from memory and writing it, in multiplications."
const ELEMENT_COST = 8

"Chunk `i`, from 1, of the numbers `0:n-1` in `chunks` chunks."
chunk_range(n, chunks, i) = (i-1)*n÷chunks:i*n÷chunks-1

"The workspaces: a buffer for each task index."
const WORKSPACES = [Float32[]]

"The workspace of a task, with room for `n` numbers and undefined contents."
workspace(task, n) = length(WORKSPACES[task]) < n ? resize!(WORKSPACES[task], n) : WORKSPACES[task]

"Free the workspaces and the buffer pool, as they are in a process that has just started."
function empty_buffers!()
    empty!(WORKSPACES)
    WARMED_UP[] = false
    reset_pool_for!(())
end
