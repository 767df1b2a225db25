# One prediction: prints the probabilities of a picture, a line for each one of a batch.
#
#     julia flux_model.jl MODEL.graph IMAGE.npy [--backend auto|flux|plain] [--device auto|cpu|gpu]

include(joinpath(@__DIR__, "load.jl"))
using .FluxdropWorker: choose_backend, exit_on_failure, one_shot_options, print_predictions

options = exit_on_failure(() -> one_shot_options(ARGS))

# A statement of its own, so that what follows sees the methods of Flux.
backend = exit_on_failure(() -> choose_backend(options.backend, options.device))

exit_on_failure(() -> print_predictions(stdout, options, backend))
