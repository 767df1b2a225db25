"""Find the Julia that workers run on, with as few processes as possible."""

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
    """Return the folder for everything that fluxdrop installs for itself, private to one user."""
    if own := os.environ.get("FLUXDROP_DATA_DIR"):
        return Path(own).absolute()
    shared = Path(os.environ.get("XDG_DATA_HOME", ""))
    # The XDG specification says to ignore relative paths.
    return (shared if shared.is_absolute() else Path.home() / ".local" / "share") / "fluxdrop"


def find_julia(data: Path | None = None) -> JuliaInstall | None:
    """Return the Julia to start workers with; None if there is none.

    The first of these is used: the one in ``FLUXDROP_JULIA``, the one that ``fluxdrop setup`` recorded in
    the data folder, the one on ``PATH``. ``FLUXDROP_JULIA_PROJECT`` overrides its project.

    Raises:
        FluxdropError: An override cannot be used, or the Julia is older than 1.5; kind ``julia``. Another
            Julia is never used instead.
    """
    from fluxdrop.provision.state import read_install

    project = _project_override()
    found = executable_override() or read_install(data or data_dir()) or julia_on_path()
    if found is None or project is None:
        return found
    return replace(found, project=project, flux="")


def executable_override() -> JuliaInstall | None:
    """Return the Julia that ``FLUXDROP_JULIA`` names; None if it is not set.

    Raises:
        FluxdropError: It does not run as Julia, or is older than 1.5; kind ``julia``.
    """
    named = os.environ.get(EXECUTABLE_VARIABLE)
    if not named:
        return None
    from shutil import which

    executable = which(expanded(named)) or expanded(named)
    try:
        version = julia_version(Path(executable))
    except ValueError as error:
        raise FluxdropError(
            f"{EXECUTABLE_VARIABLE} is set to {named}, which does not run as Julia: {error}",
            hint=f"Name a julia executable in {EXECUTABLE_VARIABLE}, or unset it.",
            kind="julia",
        ) from None
    _refuse_old(version, EXECUTABLE_VARIABLE)
    return JuliaInstall(
        Path(executable).absolute(), None, version=version, source=EXECUTABLE_VARIABLE
    )


def julia_on_path() -> JuliaInstall | None:
    """Return the ``julia`` on ``PATH``; None if there is none that runs.

    Raises:
        FluxdropError: It is older than 1.5; kind ``julia``.
    """
    from shutil import which

    executable = which("julia")
    try:
        version = julia_version(Path(executable)) if executable else ""
    except ValueError:
        return None
    if executable is None:
        return None
    _refuse_old(version, f"The julia on PATH, {executable},")
    return JuliaInstall(Path(executable).absolute(), None, version=version, source="PATH")


def overridden() -> bool:
    """Return whether the environment names a Julia or a project."""
    return bool(os.environ.get(EXECUTABLE_VARIABLE) or os.environ.get(PROJECT_VARIABLE))


def julia_version(executable: Path) -> str:
    """Return the version that ``julia --version`` prints.

    Raises:
        ValueError: *executable* does not run as Julia; the message says why.
    """
    import subprocess

    try:
        answer = subprocess.run(
            [executable, "--version"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()
        raise ValueError(": ".join([f"it ended with {error.returncode}", *said[-1:]])) from error
    except subprocess.TimeoutExpired as error:
        raise ValueError("it did not answer within a minute") from error
    except UnicodeDecodeError as error:
        raise ValueError("it printed no text") from error
    match = re.fullmatch(rf"julia version ({_VERSION.pattern})", answer.strip())
    if not match:
        raise ValueError(f"it printed {answer.strip()[:80]!r}")
    return match[1]


def release(version: str) -> tuple[int, int]:
    """Return major and minor version: ``release("1.10.4") == (1, 10)``; ``(0, 0)`` if *version* is none."""
    match = _VERSION.match(version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def julia_command(install: JuliaInstall) -> tuple[list[str], dict[str, str]]:
    """Return the beginning of a worker's command line, and its whole environment.

    Julia does not run the user's startup.jl, as what it prints or loads has no place in a service.
    """
    threads = len(os.sched_getaffinity(0))
    command = [str(install.executable), "--startup-file=no", f"--threads={threads}"]
    if install.project is not None:
        command.append(f"--project={install.project}")
    environment = {**os.environ, **install.env}
    environment.setdefault("JULIA_DEPOT_PATH", depot_path(data_dir()))
    # OpenBLAS treats a processor that it does not know yet as one of 2004, and is half as fast then.
    if release(install.version) < (1, 7) and _has_avx2():
        environment.setdefault("OPENBLAS_CORETYPE", "Haswell")
    return command, environment


def depot_path(data: Path) -> str:
    """Return JULIA_DEPOT_PATH for every Julia that fluxdrop starts.

    Julia writes packages and compiled code to the first depot, which is in *data*. It only reads the
    user's own, which a service could not read.
    """
    # An empty entry stands for the default depots; since Julia 1.11 they do not include the user's.
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
