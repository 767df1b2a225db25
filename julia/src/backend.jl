# The backend: the module that the layers come from, Flux or PlainLayers, and the device that they run on.

"""
A backend.

- `name`: `"fast"` (Flux's models by this package's layers), `"flux"` (Flux's own layers) or `"plain"` (without Flux).
- `layers`: the module that the layers of graphs come from.
- `flux`: the module Flux, or `nothing`.
- `note`: why Flux is not used; empty if it is.
"""
struct Backend
    name::String
    layers::Module
    flux::Union{Module,Nothing}
    device::Device
    note::String
end

"""
    choose_backend(name, device="auto") -> Backend

Choose the backend `name` (`"auto"`, `"flux"` or `"plain"`) on a device (`"auto"`, `"cpu"` or `"gpu"`).

`"auto"` loads Flux and looks for a GPU. On a GPU, models run by Flux's layers; on the CPU by this package's, which are
faster; without Flux, native models cannot run. `"flux"` takes Flux's layers everywhere. `"plain"` does not try to load
Flux. Throws [`BackendError`](@ref) if `"flux"` or `"gpu"` cannot be had, [`UsageError`](@ref) for another name.
"""
function choose_backend(name, device="auto")
    name in ("auto", "flux", "plain") || throw(UsageError("the backend is auto, flux or plain, not '$name'"))
    device in ("auto", "cpu", "gpu") || throw(UsageError("the device is auto, cpu or gpu, not '$device'"))
    flux, has_fast, note = name == "plain" ? (nothing, false, "the plain layers were asked for") : load_flux()
    if flux === nothing
        name == "flux" && throw(BackendError(note))
        device == "gpu" && throw(BackendError("a GPU is demanded, and only Flux can use one: $note"))
        PlainLayers.use_threads()
        return plain_backend(note)
    end
    gpu, reason = device == "cpu" ? (nothing, "") : find_gpu(flux)
    gpu === nothing && device == "gpu" && throw(BackendError("a GPU is demanded, and there is none that works: $reason"))
    gpu === nothing && has_fast && name == "auto" || return flux_backend(flux, gpu === nothing ? CPU : gpu)
    PlainLayers.use_threads()
    return fast_backend(flux)
end

"The backend that builds models of Flux's layers on `device`."
flux_backend(flux, device=CPU) = Backend("flux", flux, flux, device, "")

"The backend that runs Flux's models by this package's layers on the CPU."
fast_backend(flux) = Backend("fast", PlainLayers, flux, CPU, "")

"The backend that builds models of the plain layers on the CPU. `note` says why Flux is not used."
plain_backend(note) = Backend("plain", PlainLayers, nothing, CPU, note)

"""
    load_flux() -> (flux, has_fast, note)

Load Flux from the active project, and with it the methods of `fast_layer` in ext/. `flux` is the module, or `nothing`;
then `note` says why. `has_fast` is whether these methods could be loaded; if not, the reason is printed on stderr. Does not
throw.
"""
@noinline function load_flux()
    try
        flux = load_package("Flux")
        return flux, has_extension() || Base.invokelatest(include_extension, flux), ""
    catch e
        return nothing, false, reason(e)
    end
end

"Load the package `name` of the active project, and return its module. Throws [`BackendError`](@ref)."
function load_package(name)
    id = Base.identify_package(name)
    id === nothing && throw(BackendError("$name is not installed in Julia's active project"))
    try
        return Base.require(id)
    catch e
        throw(BackendError("$name could not be loaded: $(reason(e))"))
    end
end

"Whether Julia has loaded the extension for Flux, as it does from version 1.9 on if this module is a package."
has_extension() = isdefined(Base, :get_extension) && parentmodule(FluxdropWorker) === FluxdropWorker &&
    Base.get_extension(FluxdropWorker, :FluxdropWorkerFluxExt) !== nothing

"""
Evaluate what the extension contains, as Julia has not loaded it; nothing of it is compiled ahead. Return whether that
succeeds: a Flux of another version may lack what it needs.
"""
function include_extension(flux)
    space = Core.eval(FluxdropWorker, :(module FluxLayers end))
    Core.eval(space, :(const Flux = $flux; const FluxdropWorker = $FluxdropWorker))
    try
        Base.include(space, normpath(joinpath(@__DIR__, "..", "ext", "flux_layers.jl")))
        return true
    catch e
        println(stderr, "fluxdrop: models run by Flux's own layers, as fluxdrop's do not know this Flux: ", one_line(e))
        return false
    end
end

"Flux's version, or an empty string without Flux."
flux_version(backend::Backend) = backend.flux === nothing ? "" : version_of(backend.flux)

version_of(flux) = isdefined(Base, :pkgversion) ? string(Base.pkgversion(flux)) : "unknown"
