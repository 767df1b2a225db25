"""The pipe to the worker: against the same bytes echoed by `cat`, and against no pipe at all."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import Row, seconds
from benchmarks.worker import predict, script, worker
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.compiler.compile import compile_bundle
from fluxdrop.predict.compiler.graph_file import Graph

_SHAPES = {"64x64": (1, 64, 64), "224x224x3": (3, 224, 224)}
_TIMES = 500
_TURNS = 7
_PROCESSES = 9
_BATCHES = (1, 32)
# As much as a pipe holds.
_PIECE = 1 << 16


def rows() -> Iterator[Row]:
    """Tensor to tensor through an identity model, against the echo; predict against a Julia script."""
    for name, shape in _SHAPES.items():
        figure = _identity_over_echo(shape)
        yield Row(f"pipe round trip, {name}, against cat", "<= 1.5", figure, "x", figure <= 1.5)
    bundle = load_bundle("round-or-angular")
    graph = compile_bundle(bundle)
    for batch in _BATCHES:
        tensor = np.zeros((batch, *bundle.spec.input.shape[1:]), dtype=np.float32)
        # Processes anew each time, and the quickest of each kind: chance, and who else computes on the
        # machine, make the same process a fifth slower.
        times = _TIMES // min(batch, 4)
        pairs = [_alone_and_piped(graph, tensor, times) for _ in range(_PROCESSES)]
        alone = min(alone for alone, _ in pairs)
        over = (min(piped for _, piped in pairs) - alone) * 1e6
        most = alone * 0.05e6 + 50
        what = f"what the pipe adds to predicting a batch of {batch}"
        yield Row(what, f"<= 5 % + 50 = {most:.0f}", over, "microseconds", over <= most)


def _alone_and_piped(graph: Graph, tensor: NDArray[np.float32], times: int) -> tuple[float, float]:
    """Seconds to predict *tensor* by *graph* in Julia itself, and over the pipe."""
    with tempfile.TemporaryDirectory() as folder, worker("plain", graph) as child:
        np.save(Path(folder) / "batch.npy", tensor)
        (Path(folder) / "model.graph").write_bytes(graph.to_bytes())
        alone, _ = script("predict.jl", f"{folder}/model.graph", f"{folder}/batch.npy", times)
        return alone, predict(child, tensor, times)


def _identity_over_echo(shape: tuple[int, ...]) -> float:
    """The two in turns, as what else the machine does would favour the one or the other."""
    graph = Graph("x", (-1, *shape), "x")
    tensor = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    data = tensor.tobytes()
    ratios = []
    with worker("plain", graph) as child, _cat() as (cat, echo), _apart(child.pid, cat):

        def identity() -> None:
            child.predict(tensor, 10)

        for _ in range(_TURNS):
            ratios.append(seconds(identity, _TIMES) / seconds(lambda: echo(data), _TIMES))
    return median(ratios)


@contextmanager
def _apart(*peers: int) -> Iterator[None]:
    """Keep this process on one processor and the main threads of *peers* on another, where there are
    two: else chance places the one peer beside its caller and the other not."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) > 1:
        os.sched_setaffinity(0, processors[:1])
        for peer in peers:
            os.sched_setaffinity(peer, processors[1:2])
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)


@contextmanager
def _cat() -> Iterator[tuple[int, Callable[[bytes], None]]]:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as cat:
        assert cat.stdin is not None
        assert cat.stdout is not None
        to, back = cat.stdin.fileno(), cat.stdout.fileno()
        os.set_blocking(to, False)

        def echo(data: bytes) -> None:
            sent = received = 0
            while received < len(data):
                if sent < len(data):
                    with suppress(BlockingIOError):
                        sent += os.write(to, data[sent:])
                received += len(os.read(back, _PIECE))

        yield cat.pid, echo
        cat.stdin.close()
