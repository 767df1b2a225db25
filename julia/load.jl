# Loads the module FluxdropWorker for the scripts beside this file: as a package, which Julia compiles once and keeps in
# its first depot, or from its source where nothing can be kept.

push!(LOAD_PATH, @__DIR__)

try
    @eval import FluxdropWorker
catch e
    println(stderr, "fluxdrop: Julia's compiled code cannot be kept, so every worker starts slowly: ", sprint(showerror, e))
    include(joinpath(@__DIR__, "src", "FluxdropWorker.jl"))
end
