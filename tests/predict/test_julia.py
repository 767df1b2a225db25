"""The Julia side: its own suite, and the script for one picture."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.provision import find_julia, julia_command
from fluxdrop.resources import julia_folder
from support.daemons import fluxdrop

pytestmark = pytest.mark.slow

MINUTES = 20 * 60
"""After this a suite that hangs is given up; nothing is measured with it."""


def julia(*arguments: object, depot: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Julia as workers are run, with the compiled code of *depot* if there is one."""
    install = find_julia()
    if install is None:
        pytest.skip("there is no Julia on this machine")
    command, environment = julia_command(install)
    if depot is not None:
        environment["JULIA_DEPOT_PATH"] = os.pathsep.join([str(depot), "~/.julia", ""])
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=MINUTES,
        check=False,
    )


def test_suite() -> None:
    """Every test of julia/test/ passes."""
    suite = julia_folder() / "test" / "runtests.jl"

    # Most of its time is compiling what runs once; the worker's own modules say how they are optimised.
    ended = julia("-O0", suite)
    print(ended.stdout, ended.stderr, sep="\n")

    assert 0 == ended.returncode
    assert "Test Summary" in ended.stdout


def test_one_shot(tmp_path: Path, samples: Path) -> None:
    """julia/flux_model.jl prints the probabilities that onnxruntime gives for the same tensor."""
    graph, tensor = tmp_path / "m.graph", tmp_path / "t.npy"
    compiled = fluxdrop("model", "compile", "round-or-angular", "-o", graph)
    prepared = fluxdrop("preprocess", samples / "angular_cross_01.png", "-o", tensor)

    ended = julia(julia_folder() / "flux_model.jl", graph, tensor)
    printed = [float(number) for number in ended.stdout.split()]
    reference = OnnxruntimeEngine(load_bundle("round-or-angular")).predict(np.load(tensor))[0]

    assert (0, 0, 0) == (compiled.returncode, prepared.returncode, ended.returncode)
    np.testing.assert_allclose(printed, reference, atol=1e-4)


def test_compiled_code_is_kept(tmp_path: Path) -> None:
    """The first process compiles the worker's package, and the next ones take the files that it kept."""
    load = julia_folder() / "load.jl"

    first = julia(load, depot=tmp_path)
    kept = {path.stat().st_ino for path in tmp_path.glob("compiled/*/FluxdropWorker/*")}
    second = julia(load, depot=tmp_path)
    after = {path.stat().st_ino for path in tmp_path.glob("compiled/*/FluxdropWorker/*")}

    assert (0, 0, "") == (first.returncode, second.returncode, second.stderr)
    assert kept
    assert kept == after


def test_compiled_code_cannot_be_kept(tmp_path: Path) -> None:
    """Where nothing can be written, workers run from the source, and say once that this is slow."""
    graph, tensor, nowhere = tmp_path / "m.graph", tmp_path / "t.npy", tmp_path / "file"
    fluxdrop("model", "compile", "round-or-angular", "-o", graph)
    np.save(tensor, np.zeros((1, 1, 64, 64), dtype=np.float32))
    nowhere.touch()
    script = julia_folder() / "flux_model.jl"

    ended, usual = julia(script, graph, tensor, depot=nowhere), julia(script, graph, tensor)

    assert 1 == ended.stderr.count("cannot be kept")
    assert (0, usual.stdout) == (ended.returncode, ended.stdout)


def test_little_garbage(tmp_path: Path) -> None:
    """A forward pass leaves little garbage, and no number of an innermost loop: collecting it stops all threads."""
    graph = tmp_path / "m.graph"
    fluxdrop("model", "compile", "round-or-angular", "-o", graph)
    script = f"""
        include(raw"{julia_folder() / "load.jl"}")
        model = FluxdropWorker.build!(FluxdropWorker.read_graph(ARGS[1]), FluxdropWorker.choose_backend("plain"))
        pictures = zeros(Float32, 64, 64, 1, 32)
        for _ in 1:3
            FluxdropWorker.predict(model, pictures)
        end
        println(@allocated FluxdropWorker.predict(model, pictures))
    """

    ended = julia("-e", script, graph)

    assert 0 == ended.returncode, ended.stderr
    # The answer, what layers note of their work, and a few numbers for each of the hundreds of tiles.
    assert int(ended.stdout) < 1_000_000


@pytest.mark.parametrize("broken", ["graph", "tensor"])
def test_one_shot_broken(tmp_path: Path, samples: Path, broken: str) -> None:
    """A damaged graph or tensor file is one line on stderr and exit code 2."""
    graph, tensor = tmp_path / "m.graph", tmp_path / "t.npy"
    fluxdrop("model", "compile", "round-or-angular", "-o", graph)
    fluxdrop("preprocess", samples / "angular_cross_01.png", "-o", tensor)
    path = graph if broken == "graph" else tensor
    path.write_bytes(path.read_bytes()[:100])

    ended = julia(julia_folder() / "flux_model.jl", graph, tensor)

    assert 2 == ended.returncode
    assert 1 == len(ended.stderr.strip().splitlines())
