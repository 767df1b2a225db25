"""One picture dropped on an idle daemon, and what the daemon takes while nothing is dropped."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import psutil

from benchmarks.station import SETTINGS, Station, serving, tensor_of
from benchmarks.table import Row, seconds
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.choose_engine import open_engine

_SAMPLE = Path(__file__).parents[1] / "examples" / "round_ring_01.png"
_TIMES = 40
_PAUSE_SECONDS = 0.1
_IDLE_SECONDS = 40.0
_SETTLING_SECONDS = 5.0


def rows() -> Iterator[Row]:
    """The time to the JSON less that of decode and forward; processor time and memory."""
    with serving() as station:
        over = (median(_drops(station)) - _decode_and_forward()) * 1000
        what = "a PNG on an idle daemon to its JSON, over decode and forward"
        yield Row(what, "<= 15", over, "ms", over <= 15)
        sleep(_SETTLING_SECONDS)
        daemon = psutil.Process(station.pid)
        processes = [daemon, *daemon.children(recursive=True)]
        before = _processor_seconds(processes)
        sleep(_IDLE_SECONDS)
        share = (_processor_seconds(processes) - before) / _IDLE_SECONDS * 100
        what = "idle daemon and worker, of one core"
        yield Row(what, "<= 0.05", share, "%", share <= 0.05)
        memory = daemon.memory_info().rss / 1e6
        yield Row("idle daemon, memory", "<= 80", memory, "MB", memory <= 80)


def _drops(station: Station) -> Iterator[float]:
    for number in range(_TIMES):
        record = station.root.outputs / f"{number}.json"
        started = perf_counter()
        shutil.copyfile(_SAMPLE, station.root.inbox / f"{number}.png")
        while not record.exists():
            sleep(0.0005)
        yield perf_counter() - started
        sleep(_PAUSE_SECONDS)


def _decode_and_forward() -> float:
    bundle = load_bundle(SETTINGS.model)
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(open_engine(SETTINGS, bundle, cache=Path(folder))) as engine,
    ):
        return seconds(lambda: engine.predict(tensor_of(_SAMPLE, bundle)), _TIMES)


def _processor_seconds(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)
