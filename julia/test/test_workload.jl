@testset "every backend serves the precompilation workload to its end" begin
    for backend in BACKENDS
        answers = IOBuffer(F.run_workload(backend))
        kinds = UInt16[]
        while !eof(answers)
            push!(kinds, next_frame(answers).kind)
        end
        @test kinds == [F.HELLO, F.PONG, F.LOADED, F.PREDICTION, F.PREDICTION, F.PREDICTION]
    end
end

@testset "the workload leaves no workspaces behind, which would go into the package's cache file" begin
    F.run_workload(F.plain_backend(""))
    @test isempty(F.PlainLayers.WORKSPACES)
end
