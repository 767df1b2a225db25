"""
What FluxdropWorker does with Flux: it builds models of Flux's layers, and makes Flux's models fast. Precompiling this
package runs the worker's workload on both, so that a worker need not compile that code before its first answer.
"""
module FluxdropWorkerFluxExt

import Flux
import FluxdropWorker
using PrecompileTools: @compile_workload

include("flux_layers.jl")

@compile_workload begin
    FluxdropWorker.run_workload(FluxdropWorker.flux_backend(Flux))
    FluxdropWorker.run_fast_workload(Flux)
end

end
