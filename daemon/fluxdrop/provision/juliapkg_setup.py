"""Provide Julia and Flux through juliapkg, the provisioner that juliacall uses as well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fluxdrop.errors import FluxdropError
from fluxdrop.provision.check import check_julia
from fluxdrop.provision.find import depot_path, julia_on_path, release
from fluxdrop.provision.install import JuliaInstall
from fluxdrop.provision.reach import unreachable
from fluxdrop.provision.script import complaint

if TYPE_CHECKING:
    from fluxdrop.provision.progress import SetupProgress

OLDEST_WITH_FLUX = (1, 10)
NEWEST_WITH_FLUX = (1, 12)
"""The bounds that juliapkg.json, beside this package, gives to juliapkg."""

_RELEASES = "https://julialang-s3.julialang.org/bin/versions.json"


def juliapkg_project(data: Path) -> Path:
    """The Julia project that holds Flux.

    juliacall inside Python uses the same one when ``PYTHON_JULIAPKG_PROJECT`` names it.
    """
    own = os.environ.get("PYTHON_JULIAPKG_PROJECT")
    return Path(own) if own else data / "julia-env"


def servers() -> list[str]:
    """What has to answer before juliapkg is worth starting."""
    if os.environ.get("PYTHON_JULIAPKG_OFFLINE") == "yes":
        return []
    package_server = os.environ.get("JULIA_PKG_SERVER", "https://pkg.julialang.org")
    # An empty JULIA_PKG_SERVER tells Julia to clone registry and packages from GitHub.
    if not package_server:
        needed = ["https://github.com"]
    elif "://" in package_server:
        needed = [package_server.rstrip("/") + "/registries"]
    else:
        needed = [f"https://{package_server.rstrip('/')}/registries"]
    return needed if _has_its_julia() else [*needed, _RELEASES]


def provide_flux(
    data: Path, progress: SetupProgress, *, force: bool = False, limit: float = 3600.0
) -> JuliaInstall:
    """Have juliapkg resolve Julia and Flux, and see both run.

    Takes seconds where Julia's servers do not answer and ``limit`` seconds at most where they do.
    The output goes to ``juliapkg.log`` in ``data``.
    """
    progress.step("Asking whether Julia's servers answer")
    if failure := unreachable(servers()):
        raise FluxdropError(failure, kind="unreachable")
    progress.step("Resolving Julia and Flux with juliapkg (this can take some minutes)")
    project = juliapkg_project(data)
    depots = os.environ.get("JULIA_DEPOT_PATH") or depot_path(data)
    # Packages go where a service finds them, and nothing into the user's ~/.julia.
    environment = {"PYTHON_JULIAPKG_PROJECT": str(project), "JULIA_DEPOT_PATH": depots}
    found = _resolve(
        project, data / "juliapkg.log", progress, environment, force=force, limit=limit
    )
    progress.step("Loading Flux")
    install = JuliaInstall(Path(found["executable"]), Path(found["project"]), source="juliapkg")
    seen = check_julia(install)
    if not seen.flux:
        raise FluxdropError(f"juliapkg chose Julia {seen.version}, but {seen.trouble}", kind="flux")
    return replace(install, version=seen.version, flux=seen.flux)


def _has_its_julia() -> bool:
    """Whether juliapkg will take a Julia that is already here instead of downloading one."""
    from shutil import which

    if os.environ.get("PYTHON_JULIAPKG_EXE"):
        return True
    # juliapkg asks juliaup before PATH, and juliaup downloads the newest Julia that fits.
    if which("juliaup"):
        return False
    try:
        here = julia_on_path()
    except FluxdropError:
        return False
    return here is not None and OLDEST_WITH_FLUX <= release(here.version) <= NEWEST_WITH_FLUX


def _resolve(
    project: Path,
    log: Path,
    progress: SetupProgress,
    environment: dict[str, str],
    *,
    force: bool,
    limit: float,
) -> dict[str, str]:
    project.mkdir(parents=True, exist_ok=True)
    answer = project / "fluxdrop.json"
    answer.unlink(missing_ok=True)
    child = [sys.executable, "-P", str(Path(__file__).with_name("resolve_child.py")), str(answer)]
    late = threading.Event()
    output: deque[str] = deque(maxlen=400)
    with (
        log.open("w") as record,
        subprocess.Popen(
            child + ["--force"] * force,
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
            # juliapkg would read a juliapkg.json that lies in the caller's folder by chance.
            cwd=project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A group of its own, so that the Julia that juliapkg started ends with it.
            start_new_session=True,
        ) as process,
    ):

        def end_late() -> None:
            late.set()
            _end(process)

        timer = threading.Timer(limit, end_late)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                record.write(line)
                output.append(line)
                progress.detail(line.strip())
            process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            timer.cancel()
    if late.is_set():
        raise FluxdropError(f"juliapkg was not done after {limit:g} s, see {log}", kind="timeout")
    if process.returncode != 0:
        raise FluxdropError(
            f"juliapkg failed: {complaint(''.join(output))} (see {log})", kind="juliapkg"
        )
    found: dict[str, str] = json.loads(answer.read_bytes())
    return found


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
