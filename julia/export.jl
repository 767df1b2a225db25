# Write a graph as a native Flux model, flux_model.jl and weights.jld2, into an existing folder.
#
#     julia export.jl MODEL.graph FOLDER CHANNELS HEIGHT WIDTH [--layout NCHW|NHWC]
#
# Exit codes: 0, 2 for a wrong command line or a model that Flux cannot compute, 3 without Flux or JLD2.

include(joinpath(@__DIR__, "load.jl"))
include(joinpath(@__DIR__, "export", "FluxExport.jl"))
using .FluxdropWorker: exit_on_failure, read_graph
using .FluxExport: export_options, flux_code, load_packages, save_weights

options = exit_on_failure(() -> export_options(ARGS))
text, weights = exit_on_failure() do
    flux_code(read_graph(options.graph), options.shape; channels_last=options.channels_last)
end

# Keep this a top-level statement of its own: the statements after it run in a world age that has Flux's methods.
flux, jld2 = exit_on_failure(load_packages)

write(joinpath(options.folder, "flux_model.jl"), text)
save_weights(options.folder, weights, flux, jld2)
