"""Run a short Julia script and return one line of its output."""

from __future__ import annotations

import re
import subprocess

from fluxdrop.errors import FluxdropError
from fluxdrop.provision.find import julia_command
from fluxdrop.provision.install import JuliaInstall


def run_julia(
    install: JuliaInstall, arguments: list[str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run Julia as workers are run, and return how it ended and what it printed.

    Args:
        install: The Julia.
        arguments: Those after the options that every worker has.
        timeout: Seconds that it may take.

    Raises:
        FluxdropError: It does not run, or takes too long; kind ``julia``.
    """
    command, environment = julia_command(install)
    try:
        return subprocess.run(
            [*command, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FluxdropError(f"{install.executable} does not run: {error}", kind="julia") from error


def answer_of(install: JuliaInstall, script: str, mark: str, timeout: float) -> str:
    """Run a script and return what follows ``MARK|`` in the first such line that it prints.

    Args:
        install: The Julia that runs it.
        script: The Julia code.
        mark: The mark.
        timeout: Seconds that it may take.

    Raises:
        FluxdropError: It does not run, prints no such line, or takes too long; kind ``julia``.
    """
    run = run_julia(install, ["-e", script], timeout)
    for line in run.stdout.splitlines():
        if line.startswith(f"{mark}|"):
            return line.partition("|")[2]
    raise FluxdropError(f"{install.executable} does not run: {complaint(run.stderr)}", kind="julia")


def complaint(output: str) -> str:
    """Return the line of a program's *output* that says what went wrong, cut to 300 characters.

    Julia and apt mark that line and print more after it. Python's tracebacks end with it.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    marked = [line for line in lines if re.match(r"(?i)(error|E):", line)]
    return (marked or lines[-1:] or ["it said nothing"])[0][:300]
