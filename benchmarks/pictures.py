"""A picture through the daemon, against a fresh Julia process for each picture."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.station import seconds_a_picture
from benchmarks.table import Row, seconds
from benchmarks.worker import has_flux
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.compiler.compile import compile_bundle
from fluxdrop.provision import find_julia, julia_command
from fluxdrop.resources import julia_folder

_SAMPLE = Path(__file__).parents[1] / "examples" / "angular_star_01.png"
_PICTURES = 200
_PROCESSES = 3


def rows() -> Iterator[Row]:
    """The time of one script call, divided by the time a picture of a batch of 200."""
    with tempfile.TemporaryDirectory() as folder:
        figure = _script(Path(folder)) / seconds_a_picture(_PICTURES)
    what = "a picture through the daemon, against a fresh julia process"
    least = 1000 if has_flux() else 300
    yield Row(what, f">= {least}", figure, "x faster", figure >= least)


def _script(folder: Path) -> float:
    install = find_julia()
    assert install is not None
    command, environment = julia_command(install)
    graph = folder / "model.graph"
    graph.write_bytes(compile_bundle(load_bundle("round-or-angular")).to_bytes())
    tensor = folder / "tensor.npy"
    subprocess.run(
        [sys.executable, "-m", "fluxdrop", "preprocess", _SAMPLE, "-o", tensor],
        check=True,
        capture_output=True,
    )
    argv = [*command, str(julia_folder() / "flux_model.jl"), str(graph), str(tensor)]
    return seconds(
        lambda: subprocess.run(argv, env=environment, check=True, capture_output=True), _PROCESSES
    )
