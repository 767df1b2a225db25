"""Which engine runs: the one that the settings name, or with ``auto`` the first that works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.logs import get_logger
from fluxdrop.predict.bundle import Bundle, needs_flux
from fluxdrop.predict.engine import Engine
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.provision import JuliaInstall, find_julia

log = get_logger("fluxdrop.engine")


def open_engine(
    settings: Settings,
    bundle: Bundle,
    *,
    cache: Path | None = None,
    wait_hook: Callable[[], None] | None = None,
) -> Engine:
    """Load *bundle* into the engine that *settings* choose; *cache* keeps compiled models.

    With ``auto``, what is not there or does not start is passed over, and the engine's info says
    why; not so for a native Flux model or a demanded GPU, which have no other engine. Raises
    FluxdropError when the named engine, or the last one, does not work either.
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
            raise needs_flux(bundle, "julia_backend is plain", "Set julia_backend to auto.")
        return _open_julia(settings, install, bundle, _graph(bundle, cache), wait_hook)
    except FluxdropError as error:
        if bundle.kind == "flux" and error.kind == "julia" and settings.engine != "juliacall":
            raise needs_flux(bundle, error.message, error.hint) from error
        if settings.engine != "auto" or settings.device == "gpu" or bundle.kind == "flux":
            raise
        note = f"Julia is not used: {error.message.removesuffix('.')}"
        log.warning("engine fell back", engine="onnxruntime", reason=error.message, hint=error.hint)
        return OnnxruntimeEngine(bundle, note=note)


def _graph(bundle: Bundle, cache: Path | None) -> bytes | None:
    if bundle.kind == "flux":
        return None
    # The compiler comes with onnx, which onnxruntime can do without.
    from fluxdrop.predict.compiler.compile import compiled

    return compiled(bundle, cache)


def _open_julia(
    settings: Settings,
    install: JuliaInstall,
    bundle: Bundle,
    graph: bytes | None,
    wait_hook: Callable[[], None] | None,
) -> Engine:
    if settings.engine == "juliacall":
        from fluxdrop.predict.juliacall_engine import JuliacallEngine

        return JuliacallEngine(settings, install, bundle, graph, wait_hook=wait_hook)
    from fluxdrop.predict.julia_engine import JuliaEngine

    return JuliaEngine(settings, install, bundle, graph, wait_hook=wait_hook)
