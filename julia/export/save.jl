# The part that needs Flux and JLD2.

"""
    load_packages() -> (flux, jld2)

Load Flux and JLD2 from the active project. Throws `BackendError` if one of them is not there.
"""
function load_packages()
    return map(FluxdropWorker.load_package, ("Flux", "JLD2"))
end

"""
    save_weights(folder, weights, flux, jld2)

Build the architecture of the folder's flux_model.jl, put the `weights` into its layers, and write weights.jld2.
"""
function save_weights(folder, weights, flux, jld2)
    space = FluxdropWorker.evaluate(joinpath(folder, "flux_model.jl"))
    model = Base.invokelatest(space.architecture)
    for (path, fields) in weights
        layer = foldl((part, key) -> key isa Int ? part[key] : getproperty(part, key), path; init=model)
        for (field, array) in fields
            target = field === Symbol() ? layer : getproperty(layer, field)
            size(target) == size(array) || error("the weights of size $(size(array)) do not fit $path.$field of $(size(target))")
            copyto!(target, array)
        end
    end
    Base.invokelatest(jld2.jldsave, joinpath(folder, "weights.jld2"); state=Base.invokelatest(flux.state, model))
    return nothing
end

"""
    export_options(arguments) -> (graph, folder, shape, channels_last)

Parse the command line of export.jl into a named tuple. Throws `UsageError`.
"""
function export_options(arguments)
    positional, options = FluxdropWorker.read_options(arguments, ("layout",))
    sizes = map(word -> tryparse(Int, word), positional[min(end + 1, 3):end])
    layout = get(options, "layout", "NCHW")
    length(sizes) == 3 && all(n -> n !== nothing && n > 0, sizes) && layout in ("NCHW", "NHWC") ||
        throw(UsageError("usage: export.jl MODEL.graph FOLDER CHANNELS HEIGHT WIDTH [--layout NCHW|NHWC]"))
    return (graph=positional[1], folder=positional[2], shape=Tuple(Int.(sizes)), channels_last=layout == "NHWC")
end
