"""Find the Julia that workers run on, without starting more processes than the answer needs."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.provision.install import JuliaInstall
from fluxdrop.resources import expanded

EXECUTABLE_VARIABLE = "FLUXDROP_JULIA"
PROJECT_VARIABLE = "FLUXDROP_JULIA_PROJECT"
OLDEST_JULIA = (1, 5)

_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.\d+)?\S*")


def data_dir() -> Path:
    """The folder for everything that fluxdrop provides for itself, private to one user."""
    if own := os.environ.get("FLUXDROP_DATA_DIR"):
        return Path(own).absolute()
    shared = Path(os.environ.get("XDG_DATA_HOME", ""))
    # The XDG specification has relative paths ignored.
    return (shared if shared.is_absolute() else Path.home() / ".local" / "share") / "fluxdrop"


def find_julia(data: Path | None = None) -> JuliaInstall | None:
    """The Julia to start workers with, or ``None`` where there is none.

    Looks at ``FLUXDROP_JULIA`` and ``FLUXDROP_JULIA_PROJECT``, at what ``fluxdrop setup``
    recorded in the data folder, at ``PATH``, in this order. An override that cannot be used is
    an error and never a reason to take another Julia; so is a Julia older than 1.5.
    """
    from fluxdrop.provision.state import read_install

    project = _project_override()
    found = executable_override() or read_install(data or data_dir()) or julia_on_path()
    if found is None or project is None:
        return found
    return replace(found, project=project, flux="")


def executable_override() -> JuliaInstall | None:
    """The Julia that ``FLUXDROP_JULIA`` names, or ``None`` where it is not set."""
    named = os.environ.get(EXECUTABLE_VARIABLE)
    if not named:
        return None
    from shutil import which

    executable = which(expanded(named))
    version = julia_version(Path(executable)) if executable else None
    if executable is None or version is None:
        raise FluxdropError(
            f"{EXECUTABLE_VARIABLE} is set to {named}, which does not run as Julia",
            hint=f"Name a julia executable in {EXECUTABLE_VARIABLE}, or unset it.",
            kind="julia",
        )
    _refuse_old(version, EXECUTABLE_VARIABLE)
    return JuliaInstall(
        Path(executable).absolute(), None, version=version, source=EXECUTABLE_VARIABLE
    )


def julia_on_path() -> JuliaInstall | None:
    """The ``julia`` on ``PATH``, or ``None`` where there is none that runs."""
    from shutil import which

    executable = which("julia")
    version = julia_version(Path(executable)) if executable else None
    if executable is None or version is None:
        return None
    _refuse_old(version, f"The julia on PATH, {executable},")
    return JuliaInstall(Path(executable).absolute(), None, version=version, source="PATH")


def overridden() -> bool:
    """Whether the environment names a Julia or a project."""
    return bool(os.environ.get(EXECUTABLE_VARIABLE) or os.environ.get(PROJECT_VARIABLE))


def julia_version(executable: Path) -> str | None:
    """What ``julia --version`` says, or ``None`` where it does not run as Julia."""
    import subprocess

    try:
        answer = subprocess.run(
            [executable, "--version"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    match = re.fullmatch(rf"julia version ({_VERSION.pattern})", answer.strip())
    return match[1] if match else None


def release(version: str) -> tuple[int, int]:
    """Major and minor number: ``release("1.10.4") == (1, 10)``."""
    match = _VERSION.match(version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def julia_command(install: JuliaInstall) -> tuple[list[str], dict[str, str]]:
    """The start of a worker's command line and its whole environment.

    The user's startup.jl is left out: what it prints or loads is not for a service.
    """
    threads = len(os.sched_getaffinity(0))
    command = [str(install.executable), "--startup-file=no", f"--threads={threads}"]
    if install.project is not None:
        command.append(f"--project={install.project}")
    environment = {**os.environ, **install.env}
    environment.setdefault("JULIA_DEPOT_PATH", depot_path(data_dir()))
    # OpenBLAS takes a processor that is younger than itself for one of 2004, and is then half as fast.
    if release(install.version) < (1, 7) and _has_avx2():
        environment.setdefault("OPENBLAS_CORETYPE", "Haswell")
    return command, environment


def depot_path(data: Path) -> str:
    """Julia's depots, for every Julia that fluxdrop starts: it keeps packages and compiled code in the first.

    The user's own is looked into and left as it is; a service could not read it.
    """
    # What an empty entry stands for has the user's depot in it before Julia 1.11 only.
    return os.pathsep.join([str(data / "julia-depot"), "~/.julia", ""])


def _has_avx2() -> bool:
    try:
        return {"avx2", "fma"} <= set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False


def _project_override() -> Path | None:
    named = os.environ.get(PROJECT_VARIABLE)
    if not named:
        return None
    project = expanded(named).absolute()
    if not project.is_dir():
        raise FluxdropError(
            f"{PROJECT_VARIABLE} is set to {named}, which is not a folder",
            hint=f"Name the folder of a Project.toml in {PROJECT_VARIABLE}, or unset it.",
            kind="julia",
        )
    return project


def _refuse_old(version: str, subject: str) -> None:
    if release(version) < OLDEST_JULIA:
        raise FluxdropError(
            f"{subject} is Julia {version}; fluxdrop needs 1.5 or newer",
            hint="Install a newer Julia, or let `fluxdrop setup` provide one.",
            kind="julia",
        )
