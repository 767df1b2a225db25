"""Run a Julia once to see that it works, and whether Flux loads in it."""

from __future__ import annotations

import re
import subprocess
from typing import NamedTuple

from fluxdrop.errors import FluxdropError
from fluxdrop.provision.find import JuliaInstall, julia_command

# A product of matrices needs BLAS, the library that a half-provided Julia most often lacks.
_SCRIPT = """
using LinearAlgebra
[1.0 2; 3 4] * [1.0 2; 3 4] == [7.0 10; 15 22] || error("a product of matrices came out wrong")
flux, trouble = let id = Base.identify_package("Flux")
    if VERSION < v"1.10"
        "", "Flux 0.16 needs Julia 1.10"
    elseif id === nothing
        "", "Flux is not installed for it"
    else
        try
            version = pkgversion(Base.require(id))
            version >= v"0.16" ? (string(version), "") : ("", "it has Flux $version, not 0.16")
        catch problem
            "", "Flux does not load: " * first(split(sprint(showerror, problem), '\\n'))
        end
    end
end
println("fluxdrop-check|", VERSION, "|", flux, "|", trouble)
"""


class Check(NamedTuple):
    """What a Julia said of itself."""

    version: str
    flux: str
    """Empty where Flux 0.16 or newer does not load."""
    trouble: str
    """Why Flux does not load, in one line; empty where it does."""


def check_julia(install: JuliaInstall, timeout: float = 600.0) -> Check:
    """Have ``install`` run; an error where it does not.

    The first load of Flux may compile it, hence the long default for ``timeout``.
    """
    command, env = julia_command(install)
    try:
        run = subprocess.run(
            [*command, "-e", _SCRIPT],
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise FluxdropError(f"{install.executable} does not run: {problem}", kind="julia") from None
    for line in run.stdout.splitlines():
        if line.startswith("fluxdrop-check|"):
            return Check(*line.split("|", 3)[1:])
    raise FluxdropError(
        f"{install.executable} does not run: {complaint(run.stderr)}",
        kind="julia",
    )


def complaint(output: str) -> str:
    """The line of a program's output that says what went wrong.

    Julia and apt mark that line and print more after it; Python's tracebacks end with it.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    marked = [line for line in lines if re.match(r"(?i)(error|E):", line)]
    return (marked or lines[-1:] or ["it said nothing"])[0][:300]
