"""Run a Julia once: check that it works and whether Flux loads in it, and let it compile the worker."""

from __future__ import annotations

import json
from typing import NamedTuple

from fluxdrop.provision.install import JuliaInstall
from fluxdrop.provision.script import answer_of
from fluxdrop.resources import julia_folder

# A matrix product needs BLAS, the library that an incomplete installation of Julia most often lacks.
_SCRIPT = """
using LinearAlgebra
[1.0 2; 3 4] * [1.0 2; 3 4] == [7.0 10; 15 22] || error("a product of matrices came out wrong")
flux, flux_error = let id = Base.identify_package("Flux")
    if VERSION < v"1.10"
        "", "Flux 0.16 needs Julia 1.10"
    elseif id === nothing
        "", "Flux is not installed for it"
    else
        try
            version = pkgversion(Base.require(id))
            version >= v"0.16" ? (string(version), "") : ("", "it has Flux $version, not 0.16")
        catch problem
            # Julia would show the linker's whole environment.
            "", "Flux does not load: " * (problem isa ProcessFailedException ? "Julia's linker failed" :
                                          first(split(sprint(showerror, problem), '\\n')))
        end
    end
end
include(LOAD)
println("fluxdrop-check|", VERSION, "|", flux, "|", flux_error)
"""


class Check(NamedTuple):
    """What a check of a Julia found."""

    version: str
    flux: str
    """Empty where Flux 0.16 or newer does not load."""
    flux_error: str
    """Why Flux does not load, in one line; empty where it does."""


def check_julia(install: JuliaInstall, timeout: float = 600.0) -> Check:
    """Run *install* and return what it has.

    It compiles Flux and the worker and keeps the result, so that workers start sooner. This is why the
    default *timeout*, in seconds, is long.

    Raises:
        FluxdropError: It does not run, or takes too long; kind ``julia``.
    """
    load = json.dumps(str(julia_folder() / "load.jl")).replace("$", "\\$")
    script = f"const LOAD = {load}\n{_SCRIPT}"
    return Check(*answer_of(install, script, "fluxdrop-check", timeout).split("|", 2))
