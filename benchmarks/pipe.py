"""The pipe to the worker: against the same bytes echoed by `cat`, and against no pipe at all."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.table import Row, seconds
from benchmarks.worker import predict, script, worker
from fluxdrop.child import Child
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.compiler.compile import compile_bundle
from fluxdrop.wire import Kind

_SIZES = {"64x64": 64 * 64 * 4, "224x224x3": 224 * 224 * 3 * 4}
_TIMES = 500
_BATCHES = (1, 32)


def rows() -> Iterator[Row]:
    """A PING round trip of each tensor's size against the echo; predict against a Julia script."""
    with worker("plain") as child:
        for name, size in _SIZES.items():
            data = bytes(size)
            figure = _ping(child, data) / _echo(data)
            yield Row(f"pipe round trip, {name}, against cat", "<= 1.5", figure, "x", figure <= 1.5)
    bundle = load_bundle("round-or-angular")
    graph = compile_bundle(bundle)
    for batch in _BATCHES:
        with tempfile.TemporaryDirectory() as folder, worker("plain", graph) as child:
            tensor = np.zeros((batch, *bundle.spec.input.shape[1:]), dtype=np.float32)
            np.save(Path(folder) / "batch.npy", tensor)
            (Path(folder) / "model.graph").write_bytes(graph)
            alone, _ = script("predict.jl", f"{folder}/model.graph", f"{folder}/batch.npy", _TIMES)
            over = (predict(child, tensor, _TIMES) - alone) * 1e6
            most = alone * 0.05e6 + 50
            what = f"what the pipe adds to predicting a batch of {batch}"
            yield Row(what, f"<= 5 % + 50 = {most:.0f}", over, "microseconds", over <= most)


def _ping(child: Child, data: bytes) -> float:
    return seconds(
        lambda: child.call(Kind.PING, data, expect=Kind.PONG, timeout=10),
        _TIMES,
    )


def _echo(data: bytes) -> float:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as cat:
        assert cat.stdin is not None
        assert cat.stdout is not None
        to, back = cat.stdin.fileno(), cat.stdout.fileno()
        os.set_blocking(to, False)

        def round_trip() -> None:
            sent = received = 0
            while received < len(data):
                if sent < len(data):
                    with suppress(BlockingIOError):
                        sent += os.write(to, data[sent:])
                received += len(os.read(back, 1 << 20))

        taken = seconds(round_trip, _TIMES)
        cat.stdin.close()
        return taken
