"""The pipe to the worker against the same bytes echoed by `cat`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress

from benchmarks.table import Row, seconds
from fluxdrop.child import Child
from fluxdrop.provision import find_julia, julia_command
from fluxdrop.resources import julia_folder
from fluxdrop.wire import Kind

_SIZES = {"64x64": 64 * 64 * 4, "224x224x3": 224 * 224 * 3 * 4}
_TIMES = 500


def rows() -> Iterator[Row]:
    """A PING round trip of each tensor's size, divided by the time of the echo."""
    install = find_julia()
    assert install is not None
    command, environment = julia_command(install)
    argv = [*command, str(julia_folder() / "worker.jl"), "--backend", "plain"]
    worker = Child("worker", argv, env=environment, start_timeout=180)
    try:
        for name, size in _SIZES.items():
            data = bytes(size)
            figure = _ping(worker, data) / _echo(data)
            yield Row(f"pipe round trip, {name}, against cat", "<= 1.5", figure, "x", figure <= 1.5)
    finally:
        worker.stop()


def _ping(worker: Child, data: bytes) -> float:
    return seconds(
        lambda: worker.call(Kind.PING, data, expect=Kind.PONG, timeout=10),
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
