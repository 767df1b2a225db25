"""Which engine runs: the one that the settings name, or with ``auto`` the first that works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.logs import get_logger
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.compiler.compile import compiled
from fluxdrop.predict.engine import Engine
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.provision import find_julia

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
    why. Raises FluxdropError when the named engine, or the last one, does not work either.
    """
    if settings.engine == "onnxruntime":
        return OnnxruntimeEngine(bundle)
    try:
        return _open_julia(settings, bundle, cache, wait_hook)
    except FluxdropError as error:
        if settings.engine == "julia":
            raise
        note = f"Julia is not used: {error.message}"
        log.warning("engine fell back", engine="onnxruntime", reason=error.message, hint=error.hint)
        return OnnxruntimeEngine(bundle, note=note)


def _open_julia(
    settings: Settings,
    bundle: Bundle,
    cache: Path | None,
    wait_hook: Callable[[], None] | None,
) -> Engine:
    from fluxdrop.predict.julia_engine import JuliaEngine

    install = find_julia()
    if install is None:
        raise FluxdropError(
            "There is no Julia on this machine",
            hint="Run `fluxdrop setup`, or name one in FLUXDROP_JULIA.",
            kind="julia",
        )
    graph = compiled(bundle, cache)
    return JuliaEngine(settings, install, bundle, graph, wait_hook=wait_hook)
