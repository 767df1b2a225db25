"""Memory that the daemon and a worker share, for what is too large to be copied through a pipe."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.predict.compiler.graph_file import Graph, write_temporary
from fluxdrop.predict.worker import Worker
from fluxdrop.processes.child import CallFailed
from fluxdrop.processes.shared_memory import SharedMemory
from fluxdrop.processes.wire import FrameKind, pack_head
from support.daemons import PATIENCE
from support.needs import JULIA, needs_julia

pytestmark = pytest.mark.slow

SUM = """
import mmap, numpy, sys
mapped = mmap.mmap(int(sys.argv[1]), 0)
print(numpy.frombuffer(mapped, "f4", int(sys.argv[2])).sum())
"""
IDENTITY = Graph("x", (-1, 3, 64, 64), "x")
SIZES = (1, 8, 2, 32, 1, 40)
"""Batches of 48 KiB a picture: through the pipe, growing, and smaller than what was there before."""


def batch_of(pictures: int) -> NDArray[np.float32]:
    """A batch of its own for each number of pictures."""
    return np.random.default_rng(pictures).random((pictures, 3, 64, 64), dtype=np.float32)


@contextmanager
def identity() -> Iterator[Worker]:
    """A worker whose model returns its input."""
    assert JULIA is not None
    worker = Worker(Settings(), JULIA)
    try:
        worker.load(write_temporary(IDENTITY), PATIENCE)
        yield worker
    finally:
        worker.stop()


def descriptors() -> int:
    """How many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no files in memory on this system")
def test_seen_by_a_child() -> None:
    """What is put there a process that inherits the descriptor reads, also after the memory grew."""
    with closing(SharedMemory()) as memory:
        for size in (10, 100_000, 7):
            numbers = np.arange(size, dtype=np.float32)
            memory.put(numbers)
            seen = subprocess.run(
                [sys.executable, "-c", SUM, str(memory.descriptor), str(size)],
                pass_fds=[memory.descriptor],
                capture_output=True,
                check=True,
            )
            assert numbers.sum() == pytest.approx(float(seen.stdout))


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no files in memory on this system")
def test_row_major() -> None:
    """Elements lie there row by row, however the array is laid out in its own memory."""
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    with closing(SharedMemory()) as memory:
        memory.put(turned)

        assert turned.tobytes() == os.pread(memory.descriptor, turned.nbytes, 0)


def without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the system no files in memory."""
    monkeypatch.delattr(os, "memfd_create", raising=False)


@needs_julia
@pytest.mark.parametrize("shares", [True, False])
def test_batches(shares: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of all sizes come back as they were sent, with shared memory and without."""
    if not shares:
        without_memory(monkeypatch)
    with identity() as worker:
        for pictures in SIZES:
            batch = batch_of(pictures)
            assert np.array_equal(batch, worker.predict(batch, PATIENCE))


@needs_julia
def test_no_more_memory() -> None:
    """A batch for which no memory can be had goes through the pipe."""
    batch = batch_of(8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with identity() as worker:
        resource.setrlimit(resource.RLIMIT_FSIZE, (batch.nbytes // 2, hard))
        try:
            answer = worker.predict(batch, PATIENCE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert np.array_equal(batch, answer)


@needs_julia
@pytest.mark.parametrize(("shares", "room"), [(True, batch_of(8).nbytes), (False, 0)])
def test_more_than_there_is(shares: bool, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that would go past the end of the memory is refused, and the worker goes on."""
    if not shares:
        without_memory(monkeypatch)
    with identity() as worker:
        worker.predict(batch_of(8), PATIENCE)
        head = pack_head(batch_of(9))

        with pytest.raises(CallFailed, match=rf"bytes, and the shared memory {room}") as caught:
            worker.call(
                FrameKind.PREDICT_SHARED, head, expect=FrameKind.PREDICTION, timeout=PATIENCE
            )

        assert "input" == caught.value.kind
        assert np.array_equal(batch_of(2), worker.predict(batch_of(2), PATIENCE))


@needs_julia
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_nothing_stays_open(end: str) -> None:
    """A worker that ended, in order or not, leaves no descriptor behind."""
    before = descriptors()
    with identity() as worker:
        worker.predict(batch_of(8), PATIENCE)
        assert descriptors() > before
        getattr(worker, end)()

    assert before == descriptors()
