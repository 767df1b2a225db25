# Load the module FluxdropWorker for worker.jl and flux_model.jl. Load it as a package, which Julia precompiles into its
# first depot. If nothing can be written there, include the source instead and print a warning on stderr.

push!(LOAD_PATH, @__DIR__)

try
    @eval import FluxdropWorker
catch e
    println(stderr, "fluxdrop: Julia's compiled code cannot be kept, so every worker starts slowly: ", sprint(showerror, e))
    include(joinpath(@__DIR__, "src", "FluxdropWorker.jl"))
end
