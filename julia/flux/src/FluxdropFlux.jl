"""
Flux as the worker uses it: to load this package is to load Flux together with the native code that Julia made of its
layers when the package was precompiled. Without it, a worker compiles them before its first answer.
"""
module FluxdropFlux

import Flux
import FluxdropWorker

FluxdropWorker.precompiling() && FluxdropWorker.run_workload(FluxdropWorker.flux_backend(Flux))

end
