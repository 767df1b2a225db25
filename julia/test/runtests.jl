# Run with: julia [--project=P] julia/test/runtests.jl
# If Flux can be loaded in the active project, every model is also built of Flux's layers and has to give the same result.

using Test

include(joinpath(@__DIR__, "..", "src", "FluxdropWorker.jl"))
const F = FluxdropWorker

const BACKENDS = [F.choose_backend("plain")]
const FOUND = F.choose_backend("auto")
FOUND.flux !== nothing ? push!(BACKENDS, F.flux_backend(FOUND.flux)) : @info "the Flux backend is not tested: $(FOUND.note)"

include("graphs.jl")
include("references.jl")

@testset "fluxdrop worker" begin
    include("test_wire.jl")
    include("test_graph.jl")
    include("test_thread_pool.jl")
    include("test_convolution.jl")
    include("test_winograd.jl")
    include("test_expanded_depthwise.jl")
    include("test_pooling.jl")
    include("test_normalisation.jl")
    include("test_resampling.jl")
    include("test_operators.jl")
    include("test_elementwise.jl")
    include("test_reductions.jl")
    include("test_shape.jl")
    include("test_indexing.jl")
    include("test_recurrent.jl")
    include("test_matmul.jl")
    include("test_model.jl")
    include("test_serve.jl")
    include("test_workload.jl")
    include("test_hostile.jl")
    include("test_juliacall.jl")
    include("test_containers.jl")
    include("test_buffer_pool.jl")
    include("test_fast.jl")
    include("test_native.jl")
    VERSION >= v"1.10" && include("test_aqua.jl")
    include("test_devices.jl")
    include("test_export.jl")
    include("test_npy.jl")
    Sys.iswindows() || include("test_process.jl")
end
