F.PlainLayers.WARMED_UP[] = true  # or parallel_for uses one thread

@testset "the chunks cover all items, and concurrent chunks have different task indices" begin
    seen, at_work = zeros(Int, 1000), zeros(Int, Threads.nthreads())
    F.PlainLayers.parallel_for(1000, 2^30) do task, items
        at_work[task] += 1
        seen[items] .+= 1
        at_work[task] == 1 || error("task index $task is in use twice")
        at_work[task] -= 1
    end
    @test seen == ones(Int, 1000)
end

@testset "after a chunk has failed, all other chunks have ended" begin
    ended = Threads.Atomic{Int}(0)
    work(_, items) = items[1] == 1 ? error("refused") : (Libc.systemsleep(0.05); Threads.atomic_add!(ended, 1))
    n = 2 * Threads.nthreads()
    @test_throws ErrorException F.PlainLayers.parallel_for(work, n, 2^30)
    @test ended[] == (Threads.nthreads() == 1 ? 0 : n - 1)
end
