# Print the model's output for a .npy file, one line per picture of the batch.
#
#     julia flux_model.jl MODEL.graph IMAGE.npy [--backend auto|flux|plain] [--device auto|cpu|gpu]
#
# Exit codes: 0, 2 for a wrong command line or file, 3 if the demanded backend or device is not available.

include(joinpath(@__DIR__, "load.jl"))
using .FluxdropWorker: choose_backend, exit_on_failure, one_shot_options, print_predictions

options = exit_on_failure(() -> one_shot_options(ARGS))

# Keep this a top-level statement of its own: the statements after it run in a world age that has Flux's methods.
backend = exit_on_failure(() -> choose_backend(options.backend, options.device))

exit_on_failure(() -> print_predictions(stdout, options, backend))
