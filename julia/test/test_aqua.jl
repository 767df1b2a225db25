# Aqua's checks of the package, where Aqua and Flux are in the active project.

if FOUND.flux !== nothing && Base.identify_package("Aqua") !== nothing
    push!(LOAD_PATH, normpath(joinpath(@__DIR__, "..")))
    using Aqua: Aqua
    import FluxdropWorker as Package

    @testset "the package has no ambiguities, stale dependencies, missing bounds or methods of others' types" begin
        Aqua.test_ambiguities(Package)
        Aqua.test_unbound_args(Package)
        Aqua.test_undefined_exports(Package)
        Aqua.test_project_extras(Package)
        Aqua.test_stale_deps(Package)
        Aqua.test_deps_compat(Package)
        Aqua.test_piracies(Package)
    end

    @testset "Julia loads the extension for Flux, with native code" begin
        @test Base.get_extension(Package, :FluxdropWorkerFluxExt) !== nothing
    end
end
