@testset "a part that fails leaves no other part at work" begin
    ended = Threads.Atomic{Int}(0)
    work(part, _) = part == 1 ? error("refused") : (sleep(0.2); Threads.atomic_add!(ended, 1))
    @test_throws ErrorException F.PlainLayers.in_parts(work, Threads.nthreads(), 2^30)
    @test ended[] == Threads.nthreads() - 1
end
