"""Provide Julia and Flux with juliapkg, which juliacall uses too."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fluxdrop.errors import FluxdropError
from fluxdrop.provision.attempt import attempt
from fluxdrop.provision.check import check_julia
from fluxdrop.provision.find import depot_path, julia_on_path, release
from fluxdrop.provision.install import JuliaInstall
from fluxdrop.provision.reach import unreachable
from fluxdrop.provision.script import complaint

if TYPE_CHECKING:
    from fluxdrop.provision.progress import SetupProgress

OLDEST_WITH_FLUX = (1, 10)
NEWEST_WITH_FLUX = (1, 12)
"""The bounds on Julia's version in juliapkg.json, in the folder above."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_BYTES = 16_000_000
"""With less than this free, a full disk is why a step failed, whatever it says."""

_RELEASES = "https://julialang-s3.julialang.org/bin/versions.json"


def juliapkg_project(data: Path) -> Path:
    """Return the folder of the Julia project with Flux.

    juliacall uses the same one if ``PYTHON_JULIAPKG_PROJECT`` names it.
    """
    own = os.environ.get("PYTHON_JULIAPKG_PROJECT")
    return Path(own) if own else data / "julia-env"


def juliapkg_depot(data: Path) -> Path:
    """Return the depot that setup may clean; ``JULIA_DEPOT_PATH`` can name another one, which it may not."""
    return data / "julia-depot"


def servers() -> list[str]:
    """Return the URLs that have to answer, else juliapkg would fail."""
    if os.environ.get("PYTHON_JULIAPKG_OFFLINE") == "yes":
        return []
    package_server = os.environ.get("JULIA_PKG_SERVER", "https://pkg.julialang.org")
    # With an empty JULIA_PKG_SERVER, Julia clones the registry and packages from GitHub.
    if not package_server:
        needed = ["https://github.com"]
    elif "://" in package_server:
        needed = [package_server.rstrip("/") + "/registries"]
    else:
        needed = [f"https://{package_server.rstrip('/')}/registries"]
    return needed if _needs_no_download() else [*needed, _RELEASES]


def provide_flux(
    data: Path, progress: SetupProgress, *, force: bool = False, limit: float = 3600.0
) -> JuliaInstall:
    """Let juliapkg install Julia and Flux, and check that both run.

    This takes a few seconds if Julia's servers do not answer. juliapkg's output goes to ``juliapkg.log``
    in *data*.

    Args:
        data: The data folder.
        progress: Told each step.
        force: Resolve again even if juliapkg has a result.
        limit: Seconds that juliapkg may take.

    Raises:
        FluxdropError: The servers do not answer, juliapkg fails or takes too long, or Flux does not load.
    """
    progress.step("Asking whether Julia's servers answer")
    if failure := unreachable(servers()):
        raise FluxdropError(failure, kind="unreachable")
    progress.step("Resolving Julia and Flux with juliapkg (this can take some minutes)")
    project = juliapkg_project(data)
    depots = os.environ.get("JULIA_DEPOT_PATH") or depot_path(data)
    # Packages go where a service can read them, and nothing goes into the user's ~/.julia.
    environment = {"PYTHON_JULIAPKG_PROJECT": str(project), "JULIA_DEPOT_PATH": depots}
    log = data / "juliapkg.log"
    try:
        project.mkdir(parents=True, exist_ok=True)
        with attempt(project, juliapkg_depot(data)) as temporary:
            environment["TMPDIR"] = str(temporary)
            found = _resolve(project, log, progress, environment, force=force, limit=limit)
            progress.step("Loading Flux")
            install = JuliaInstall(
                Path(found["executable"]), Path(found["project"]), source="juliapkg"
            )
            checked = check_julia(install)
            if not checked.flux:
                message = f"juliapkg chose Julia {checked.version}, but {checked.flux_error}"
                raise FluxdropError(message, kind="flux")
    except (FluxdropError, OSError) as problem:
        if shutil.disk_usage(data).free < _FULL_BYTES or getattr(problem, "errno", 0) in _FULL:
            raise FluxdropError(f"there is no space left in {data}", kind="disk") from problem
        raise
    return replace(install, version=checked.version, flux=checked.flux)


def _needs_no_download() -> bool:
    """Return whether juliapkg will use a Julia that is already installed instead of downloading one."""
    from shutil import which

    if os.environ.get("PYTHON_JULIAPKG_EXE"):
        return True
    # juliapkg asks juliaup before it looks at PATH, and juliaup downloads the newest matching Julia.
    if which("juliaup"):
        return False
    try:
        on_path = julia_on_path()
    except FluxdropError:
        return False
    return on_path is not None and OLDEST_WITH_FLUX <= release(on_path.version) <= NEWEST_WITH_FLUX


def _resolve(
    project: Path,
    log: Path,
    progress: SetupProgress,
    environment: dict[str, str],
    *,
    force: bool,
    limit: float,
) -> dict[str, str]:
    answer = project / "fluxdrop.json"
    answer.unlink(missing_ok=True)
    child = [sys.executable, "-P", str(Path(__file__).with_name("resolve_child.py")), str(answer)]
    timed_out = threading.Event()
    output: deque[str] = deque(maxlen=400)
    with (
        log.open("w") as record,
        subprocess.Popen(
            child + ["--force"] * force,
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
            # juliapkg reads juliapkg.json in the current folder, which could be another project's.
            cwd=project,
            # Its other end closes when this process dies, however it dies, and the child then ends its group.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A process group of its own, so that it can be killed together with the Julia that it started.
            start_new_session=True,
        ) as process,
    ):

        def on_timeout() -> None:
            timed_out.set()
            _kill(process)

        timer = threading.Timer(limit, on_timeout)
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
            _kill(process)
            raise
        finally:
            timer.cancel()
    if timed_out.is_set():
        raise FluxdropError(f"juliapkg was not done after {limit:g} s, see {log}", kind="timeout")
    if process.returncode != 0:
        raise FluxdropError(
            f"juliapkg failed: {_cause(''.join(output))} (see {log})", kind="juliapkg"
        )
    found: dict[str, str] = json.loads(answer.read_bytes())
    return found


def _cause(output: str) -> str:
    """Return what went wrong according to the *output* of juliapkg."""
    # Pkg only warns of these. It then tries to clone the package, and that is the error that it ends with.
    if "failed to extract archive" in output:
        return "a package could not be unpacked, as its download is broken or the disk is full"
    if "does not match git-tree-sha1" in output:
        return "the server sent a package with the wrong content"
    return complaint(output)


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
