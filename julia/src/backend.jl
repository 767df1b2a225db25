# Where the layers come from: Flux, or PlainLayers, which has the same names.

"""
`layers` is the module whose layers the operators are built of; `flux` is Flux's version or empty;
`note` says why Flux was not taken, where it was not.
"""
struct Backend
    name::String
    layers::Module
    flux::String
    device::Device
    note::String
end

"""
    choose_backend(name, device="auto") -> Backend

`"flux"` throws [`BackendError`](@ref) where Flux cannot be loaded, `"plain"` does not try, `"auto"` takes Flux
if it can. So does the device `"gpu"` where there is none that Flux can use; `"auto"` takes one if there is.
"""
function choose_backend(name, device="auto")
    name in ("auto", "flux", "plain") || throw(UsageError("the backend is auto, flux or plain, not '$name'"))
    device in ("auto", "cpu", "gpu") || throw(UsageError("the device is auto, cpu or gpu, not '$device'"))
    flux, note = name == "plain" ? (nothing, "the plain layers were asked for") : load_flux()
    if flux === nothing
        name == "flux" && throw(BackendError(note))
        device == "gpu" && throw(BackendError("a GPU is demanded, and only Flux can use one: $note"))
        PlainLayers.use_threads()
        return plain_backend(note)
    end
    gpu, trouble = device == "cpu" ? (nothing, "") : find_gpu(flux)
    gpu === nothing && device == "gpu" && throw(BackendError("a GPU is demanded, and there is none that works: $trouble"))
    return flux_backend(flux, gpu === nothing ? CPU : gpu)
end

flux_backend(flux, device=CPU) = Backend("flux", flux, version_of(flux), device, "")

plain_backend(note) = Backend("plain", PlainLayers, "", CPU, note)

"The module Flux and an empty note, or `nothing` and the reason."
@noinline function load_flux()
    id = Base.identify_package("Flux")
    id === nothing && return nothing, "Flux is not installed in Julia's active project"
    try
        load_compiled_flux()
        return Base.require(id), ""
    catch e
        return nothing, "Flux could not be loaded: $(reason(e))"
    end
end

"Load Flux by the package of julia/flux, which brings native code along, where Julia can keep that (since 1.9)."
function load_compiled_flux()
    # That package is made for the module that is a package itself.
    VERSION >= v"1.9" && parentmodule(FluxdropWorker) === FluxdropWorker || return nothing
    try
        # Not before: with this folder on the path Flux would seem to be installed.
        push!(LOAD_PATH, normpath(joinpath(@__DIR__, "..", "flux")))
        Base.require(Base.identify_package("FluxdropFlux"))
    catch e
        println(stderr, "fluxdrop: nothing is compiled ahead for Flux, so every worker starts slowly: ", one_line(e))
    end
    return nothing
end

version_of(flux) = isdefined(Base, :pkgversion) ? string(Base.pkgversion(flux)) : "unknown"
