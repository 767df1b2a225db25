"""Open the engine that the settings name; with ``auto``, the first that works."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.logs import get_logger
from fluxdrop.predict.bundle import Bundle, flux_required_error
from fluxdrop.predict.compiler.cache import compile_apart, compile_cached
from fluxdrop.predict.compiler.graph_file import GraphFile
from fluxdrop.predict.engine import Engine
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.provision import JuliaInstall, find_julia

log = get_logger("fluxdrop.engine")


def open_engine(
    settings: Settings,
    bundle: Bundle,
    *,
    cache: Path | None = None,
    compiles_apart: bool = False,
    wait_hook: Callable[[], None] | None = None,
) -> Engine:
    """Load *bundle* into the engine that *settings* choose.

    With ``auto``, onnxruntime is used when Julia is missing or does not start, and the engine's info
    says why. A native Flux model, or ``device = "gpu"``, has no fallback.

    Args:
        settings: The engine, backend and device to use, and the limits of the worker.
        bundle: The model.
        cache: The folder that keeps compiled models; None to compile each time.
        compiles_apart: Whether a model that is not in the *cache* is compiled in a process of its own.
        wait_hook: Called repeatedly while Julia starts; what it raises ends the wait.

    Raises:
        FluxdropError: When the named engine, or with ``auto`` the last one, cannot run the model.
    """
    if settings.engine == "onnxruntime":
        if settings.device == "gpu":
            raise FluxdropError(
                "The engine onnxruntime runs on the CPU, and the setting device is gpu",
                hint="Set the engine to julia, or the device to auto.",
                kind="config",
            )
        return OnnxruntimeEngine(bundle)
    try:
        install = find_julia()
        if install is None:
            raise FluxdropError(
                "There is no Julia on this machine",
                hint="Run `fluxdrop setup`, or name one in FLUXDROP_JULIA.",
                kind="julia",
            )
        if bundle.kind == "flux" and settings.julia_backend == "plain":
            raise flux_required_error(
                bundle, "julia_backend is plain", "Set julia_backend to auto."
            )
        return _open_julia(
            settings, install, bundle, _graph(bundle, cache, compiles_apart), wait_hook
        )
    except FluxdropError as error:
        if bundle.kind == "flux" and error.kind == "julia" and settings.engine != "juliacall":
            raise flux_required_error(bundle, error.message, error.hint) from error
        if settings.engine != "auto" or settings.device == "gpu" or bundle.kind == "flux":
            raise
        note = f"Julia is not used: {error.message.removesuffix('.')}"
        log.warning("engine fell back", engine="onnxruntime", reason=error.message, hint=error.hint)
        return OnnxruntimeEngine(bundle, note=note)


def _graph(bundle: Bundle, cache: Path | None, is_apart: bool) -> Callable[[], GraphFile] | None:
    """Return what compiles *bundle*; None for a native Flux model."""
    if bundle.kind == "flux":
        return None
    if is_apart and cache is not None:
        return partial(compile_apart, bundle, cache)
    return partial(compile_cached, bundle, cache)


def _open_julia(
    settings: Settings,
    install: JuliaInstall,
    bundle: Bundle,
    graph: Callable[[], GraphFile] | None,
    wait_hook: Callable[[], None] | None,
) -> Engine:
    """Open the engine juliacall if the settings name it, else the engine julia."""
    if settings.engine == "juliacall":
        from fluxdrop.predict.juliacall_engine import JuliacallEngine

        return JuliacallEngine(settings, install, bundle, graph, wait_hook=wait_hook)
    from fluxdrop.predict.julia_engine import JuliaEngine

    return JuliaEngine(settings, install, bundle, graph, wait_hook=wait_hook)
