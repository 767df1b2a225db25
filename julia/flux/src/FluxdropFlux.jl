"""
Load Flux together with native code for its layers. Precompiling this package runs the worker's workload on the Flux
backend, so that a worker which loads it need not compile those layers before its first answer.
"""
module FluxdropFlux

import Flux
import FluxdropWorker

FluxdropWorker.precompiling() && FluxdropWorker.run_workload(FluxdropWorker.flux_backend(Flux))

end
