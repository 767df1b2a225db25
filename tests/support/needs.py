"""What a test may need of the machine beside the package itself."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.util import find_spec

import pytest

from fluxdrop.provision import find_julia, julia_command

JULIA = find_julia()
GENERATES = all(find_spec(name) for name in ("torch", "diffusers", "transformers", "peft"))

needs_julia = pytest.mark.skipif(JULIA is None, reason="no Julia: fluxdrop setup provides one")
needs_generation = pytest.mark.skipif(not GENERATES, reason="the extra 'generate' is not installed")


@cache
def missing_in_julia(*packages: str) -> str:
    """Why Julia's *packages* cannot be used here; empty where they can."""
    if JULIA is None:
        return "no Julia: fluxdrop setup provides one"
    command, environment = julia_command(JULIA)
    asked = "foreach(name -> Base.find_package(name) === nothing && println(name), ARGS)"
    ended = subprocess.run(
        [*command, "-e", asked, *packages],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    names = ", ".join(ended.stdout.split())
    return f"the worker's Julia has not {names}" if names else ""
