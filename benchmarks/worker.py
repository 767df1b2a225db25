"""A worker without a daemon, and Julia scripts without a worker."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import seconds
from fluxdrop.config import Settings
from fluxdrop.predict.compiler.graph_file import Graph, write_temporary
from fluxdrop.predict.worker import Worker
from fluxdrop.provision import find_julia, julia_command

_LIMIT_SECONDS = 300.0


@contextmanager
def worker(backend: Literal["auto", "plain"], graph: Graph | None = None) -> Iterator[Worker]:
    """A worker with the model *graph*, or with none."""
    install = find_julia()
    assert install is not None
    child = Worker(Settings(julia_backend=backend), install)
    try:
        if graph is not None:
            child.load(write_temporary(graph), _LIMIT_SECONDS)
        yield child
    finally:
        child.stop()


@cache
def has_flux() -> bool:
    """Whether the Julia in use has Flux."""
    with worker("auto") as child:
        return bool(child.hello["flux"])


def predict(child: Worker, batch: NDArray[np.float32], times: int) -> float:
    """The median seconds of predicting *batch* over the pipe, after a call to warm up."""

    def call() -> None:
        child.predict(batch, _LIMIT_SECONDS)

    call()
    return seconds(call, times)


def script(name: str, *arguments: object) -> list[float]:
    """The numbers that the Julia script *name* of this folder prints."""
    install = find_julia()
    assert install is not None
    command, environment = julia_command(install)
    path = Path(__file__).with_name(name)
    ended = subprocess.run(
        [*command, str(path), *map(str, arguments)],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
    )
    return [float(word) for word in ended.stdout.split()]
