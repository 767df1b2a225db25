"""Native code of single models, which Julia keeps so that a worker starts without compiling their layers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.logs import get_logger
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.compiler.cache import compile_cached
from fluxdrop.provision import find_julia
from fluxdrop.provision.find import data_dir, release
from fluxdrop.provision.script import answer_of
from fluxdrop.resources import julia_folder

log = get_logger("fluxdrop.engine")

_OLDEST_JULIA = (1, 9)
"""Before it, Julia keeps no native code of packages."""
_MAX_KEPT = 16
_MAX_SECONDS = 600.0
_SCRIPT = """
include(LOAD)
println("fluxdrop-compiled|", FluxdropWorker.write_compiled_model(FOLDER, GRAPH))
"""


def compiled_models_folder() -> Path:
    """Return the folder that has a package for each model whose native code is kept."""
    return data_dir() / "compiled-models"


def compile_model(bundle: Bundle, settings: Settings, cache: Path) -> bool:
    """Have Julia compile the layers of *bundle* and keep their native code; it may take a minute.

    A model without kept code runs as well, and is compiled at each start. So a failure is logged only.

    Args:
        bundle: The model.
        settings: The engine that it is to run on.
        cache: The folder that keeps compiled graphs.

    Returns:
        Whether there is native code now. There is none for engines other than ``julia``, for native Flux
        models, and before Julia 1.9.
    """
    if bundle.kind == "flux" or settings.engine not in ("auto", "julia"):
        return False
    try:
        install = find_julia()
        if install is None or release(install.version) < _OLDEST_JULIA:
            return False
        graph = compile_cached(bundle, cache)
        folder = compiled_models_folder()
        folder.mkdir(parents=True, exist_ok=True)
        values = {"LOAD": julia_folder() / "load.jl", "FOLDER": folder, "GRAPH": graph.path}
        constants = "".join(f"const {name} = {_quoted(path)}\n" for name, path in values.items())
        digest = answer_of(install, constants + _SCRIPT, "fluxdrop-compiled", _MAX_SECONDS)
        _forget_old(folder, used=f"FluxdropModel_{digest[:16]}")
    except (FluxdropError, OSError) as error:
        log.warning("model not compiled ahead", model=bundle.name, reason=str(error))
        return False
    return True


def _quoted(path: Path) -> str:
    """Return *path* as a string literal of Julia."""
    return json.dumps(str(path)).replace("$", "\\$")


def _forget_old(folder: Path, used: str) -> None:
    """Remove the packages in *folder* but those last used, now *used*, and their code in Julia's depot."""
    os.utime(folder / used)
    packages = sorted(folder.glob("FluxdropModel_*"), key=lambda path: path.stat().st_mtime)
    for path in packages[:-_MAX_KEPT]:
        shutil.rmtree(path, ignore_errors=True)
        for code in data_dir().glob(f"julia-depot/compiled/v*/{path.name}"):
            shutil.rmtree(code, ignore_errors=True)
