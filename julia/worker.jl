# The process that the daemon starts: frames on two inherited descriptors (docs/protocol.md).
#
#     julia --startup-file=no worker.jl --in FD --out FD [--shared FD] [--backend auto|flux|plain] [--device auto|cpu|gpu]

include(joinpath(@__DIR__, "load.jl"))
using .FluxdropWorker: choose_backend, end_with_parent, exit_on_failure, ignore_interrupts, open_pipe, serve, worker_options

end_with_parent()
options = exit_on_failure(() -> worker_options(ARGS))

# A statement of its own, so that what follows sees the methods of Flux.
backend = exit_on_failure(() -> choose_backend(options.backend, options.device))

ignore_interrupts(() -> exit(serve(open_pipe(options), backend)))
