# Where the layers come from: Flux, or PlainLayers, which has the same names.

"""
`layers` is the module whose layers the operators are built of; `flux` is Flux's version or empty;
`note` says why Flux was not taken, where it was not.
"""
struct Backend
    name::String
    layers::Module
    flux::String
    note::String
end

"""
    choose_backend(name) -> Backend

`"flux"` throws [`BackendError`](@ref) where Flux cannot be loaded, `"plain"` does not try, `"auto"` takes Flux
if it can.
"""
function choose_backend(name)
    name == "plain" && return Backend("plain", PlainLayers, "", "the plain layers were asked for")
    name in ("auto", "flux") || throw(UsageError("the backend is auto, flux or plain, not '$name'"))
    flux, note = load_flux()
    flux === nothing || return Backend("flux", flux, version_of(flux), "")
    name == "flux" && throw(BackendError(note))
    return Backend("plain", PlainLayers, "", note)
end

"The module Flux and an empty note, or `nothing` and the reason."
function load_flux()
    id = Base.identify_package("Flux")
    id === nothing && return nothing, "Flux is not installed in Julia's active project"
    try
        return Base.require(id), ""
    catch e
        return nothing, "Flux could not be loaded: $(reason(e))"
    end
end

version_of(flux) = isdefined(Base, :pkgversion) ? string(Base.pkgversion(flux)) : "unknown"
