"""A picture through the daemon, against a fresh Julia process for each picture."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import perf_counter, sleep

from benchmarks.table import Row, seconds
from fluxdrop.jobs.store import Store
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.compiler.compile import compile_bundle
from fluxdrop.provision import find_julia, julia_command
from fluxdrop.resources import julia_folder

_SAMPLES = Path(__file__).parents[1] / "examples"
_PICTURES = 200
_PROCESSES = 3


def rows() -> Iterator[Row]:
    """The time of one script call, divided by the time a picture of a batch of 200."""
    with tempfile.TemporaryDirectory() as folder:
        figure = _script(Path(folder)) / _daemon(Path(folder))
        yield Row(
            "a picture through the daemon, against a fresh julia process",
            ">= 300",
            figure,
            "x faster",
            figure >= 300,
        )


def _script(folder: Path) -> float:
    install = find_julia()
    assert install is not None
    command, environment = julia_command(install)
    graph = folder / "model.graph"
    graph.write_bytes(compile_bundle(load_bundle("round-or-angular")))
    tensor = folder / "tensor.npy"
    picture = _SAMPLES / "angular_star_01.png"
    subprocess.run(
        [sys.executable, "-m", "fluxdrop", "preprocess", picture, "-o", tensor],
        check=True,
        capture_output=True,
    )
    argv = [*command, str(julia_folder() / "flux_model.jl"), str(graph), str(tensor)]
    return seconds(
        lambda: subprocess.run(argv, env=environment, check=True, capture_output=True), _PROCESSES
    )


def _daemon(folder: Path) -> float:
    """Seconds a picture, from the drop of 200 to the last durable result, the worker being warm."""
    root = folder / "root"
    subprocess.run(
        [sys.executable, "-m", "fluxdrop", "init", root], check=True, capture_output=True
    )
    daemon = subprocess.Popen(
        [sys.executable, "-m", "fluxdrop", "run", "--root", root, "--engine", "julia"],
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (root / ".fluxdrop" / "daemon.json").exists():
            assert daemon.poll() is None
            sleep(0.01)
        samples = sorted(_SAMPLES.glob("*.png"))
        started = perf_counter()
        for number in range(_PICTURES):
            shutil.copyfile(samples[number % len(samples)], root / "inbox" / f"{number}.png")
        with closing(Store(root / ".fluxdrop" / "jobs.sqlite3", read_only=True)) as store:
            while store.counts()["done"] < _PICTURES:
                sleep(0.002)
        return (perf_counter() - started) / _PICTURES
    finally:
        daemon.terminate()
        daemon.wait()
