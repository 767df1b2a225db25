"""Running a short Julia script to its end, for one line of what it prints."""

from __future__ import annotations

import re
import subprocess

from fluxdrop.errors import FluxdropError
from fluxdrop.provision.find import julia_command
from fluxdrop.provision.install import JuliaInstall


def answer_of(install: JuliaInstall, script: str, mark: str, timeout: float) -> str:
    """What follows ``MARK|`` in a line that *script* prints, run by *install*.

    Raises FluxdropError, kind ``julia``, where it does not run, or takes over *timeout* seconds.
    """
    command, environment = julia_command(install)
    try:
        run = subprocess.run(
            [*command, "-e", script],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FluxdropError(f"{install.executable} does not run: {error}", kind="julia") from error
    for line in run.stdout.splitlines():
        if line.startswith(f"{mark}|"):
            return line.partition("|")[2]
    raise FluxdropError(f"{install.executable} does not run: {complaint(run.stderr)}", kind="julia")


def complaint(output: str) -> str:
    """The line of a program's output that says what went wrong.

    Julia and apt mark that line and print more after it; Python's tracebacks end with it.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    marked = [line for line in lines if re.match(r"(?i)(error|E):", line)]
    return (marked or lines[-1:] or ["it said nothing"])[0][:300]
