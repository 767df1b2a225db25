# The backend: the module that the layers come from, Flux or PlainLayers, and the device that they run on.

"""
A backend. `name` is `"flux"` or `"plain"`; `layers` is the module with the layers; `flux` is Flux's version, or empty;
`note` says why Flux is not used, and is empty if it is.
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

Choose the backend `name` (`"auto"`, `"flux"` or `"plain"`) on a device (`"auto"`, `"cpu"` or `"gpu"`).

`"auto"` takes Flux, or a GPU, if it can be loaded, and otherwise the plain layers, or the CPU. `"plain"` does not try to
load Flux. Throws [`BackendError`](@ref) if `"flux"` or `"gpu"` cannot be had, [`UsageError`](@ref) for another name.
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
    gpu, reason = device == "cpu" ? (nothing, "") : find_gpu(flux)
    gpu === nothing && device == "gpu" && throw(BackendError("a GPU is demanded, and there is none that works: $reason"))
    return flux_backend(flux, gpu === nothing ? CPU : gpu)
end

"The backend that builds models of Flux's layers on `device`."
flux_backend(flux, device=CPU) = Backend("flux", flux, version_of(flux), device, "")

"The backend that builds models of the plain layers on the CPU. `note` says why Flux is not used."
plain_backend(note) = Backend("plain", PlainLayers, "", CPU, note)

"""
    load_flux() -> (flux, note)

Load Flux from the active project. Return the module and `""`, or `nothing` and the reason. Does not throw.
"""
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

"""
    load_compiled_flux() -> nothing

Load the package in julia/flux, which loads Flux with precompiled native code. Does nothing before Julia 1.9, which
cannot keep native code of packages. Prints a warning on stderr if that package cannot be loaded.
"""
function load_compiled_flux()
    # FluxdropFlux imports the package FluxdropWorker. It is of no use to a copy of this module that was included.
    VERSION >= v"1.9" && parentmodule(FluxdropWorker) === FluxdropWorker || return nothing
    try
        # load_flux must look for Flux before this: julia/flux on the load path makes Flux look installed.
        push!(LOAD_PATH, normpath(joinpath(@__DIR__, "..", "flux")))
        Base.require(Base.identify_package("FluxdropFlux"))
    catch e
        println(stderr, "fluxdrop: nothing is compiled ahead for Flux, so every worker starts slowly: ", one_line(e))
    end
    return nothing
end

version_of(flux) = isdefined(Base, :pkgversion) ? string(Base.pkgversion(flux)) : "unknown"
