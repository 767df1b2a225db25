# The worker process. It serves requests on two inherited file descriptors (docs/protocol.md).
#
#     julia --startup-file=no worker.jl --in FD --out FD [--shared FD] [--backend auto|flux|plain] [--device auto|cpu|gpu]
#         [--compiled FOLDER]
#
# Exit codes: 0 after STOP or end of file, 1 after bytes that break the protocol, 2 for a wrong command line,
# 3 if the demanded backend or device is not available.

include(joinpath(@__DIR__, "load.jl"))
using .FluxdropWorker: choose_backend, end_with_parent, exit_on_failure, ignore_interrupts, open_pipe, serve, worker_options

end_with_parent()
options = exit_on_failure(() -> worker_options(ARGS))

# Keep this a top-level statement of its own: the statements after it run in a world age that has Flux's methods.
backend = exit_on_failure(() -> choose_backend(options.backend, options.device))

ignore_interrupts(() -> exit(serve(open_pipe(options), backend; compiled=options.compiled)))
