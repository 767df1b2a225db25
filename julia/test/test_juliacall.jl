# The functions that the engine juliacall calls, with addresses of Julia arrays in place of NumPy's.

address(x) = Int(UInt(pointer(x)))

@testset "a tensor is read at its address, and the result is the model's" begin
    for backend in BACKENDS
        x = numbers(5, 6, 3, 2)
        model = F.build_file(graph_path(RESIDUAL_FILE), backend)
        y = GC.@preserve x F.predict_at_address(model, address(x), reverse(size(x))...)
        @test y isa Matrix{Float32} && y ≈ residual_reference(x)
    end
end

@testset "errors have a kind and a message of one line" begin
    x = numbers(2, 2)
    told(f) = try f() catch e F.kind(e), F.one_line(e) end
    @test told(() -> F.build_file(graph_path(b"rubbish"), BACKENDS[1])) ==
        ("graph", "a graph file has at least 24 bytes, this one 7")
    model = F.build!(F.read_graph(RESIDUAL_FILE), BACKENDS[1])
    @test told(() -> GC.@preserve x F.predict_at_address(model, address(x), 2, 2))[1] == "input"
    @test told(() -> F.choose_backend("plain", "gpu")) ==
        ("julia", "a GPU is demanded, and only Flux can use one: the plain layers were asked for")
    @test told(() -> F.choose_backend("plain", "tpu"))[2] == "the device is auto, cpu or gpu, not 'tpu'"
end
