"""Prompts on a CPU with the embedded pipeline: the daemon against a bare diffusers loop."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from threading import Event, Thread
from time import perf_counter, sleep
from typing import NamedTuple

import msgspec
import psutil

import fluxdrop
from benchmarks.station import Station, serving
from benchmarks.table import Row

_PIPELINE = Path(fluxdrop.__file__).parent / "models" / "shapes-diffusion"
_SIZE = 64
_COUNT = 100
_TIMES = 3
_PROMPT = (
    "a red circle on a white background\n"
    f"Steps: 20, CFG scale: 5, Seed: {{seed}}, Size: {_SIZE}x{_SIZE}\n"
)


class Measured(NamedTuple):
    """Seconds per picture, and the most memory of the processes that generate, in bytes."""

    seconds: float
    memory: int


def rows() -> Iterator[Row]:
    """Rate and memory divided by the loop's, and the time of the first picture by that of a fresh script."""
    first = _loop()
    daemon, batches = _daemon(1), _daemon(8)
    last = _loop()
    loop = Measured((first.seconds + last.seconds) / 2, min(first.memory, last.memory))
    for made, what, target in ((daemon, "", 1.0), (batches, ", generator_batch_size = 8", 1.5)):
        figure = loop.seconds / made.seconds
        what = f"{_COUNT} prompts{what}, against a bare diffusers loop"
        yield Row(what, f">= {target}", figure, "x as fast", figure >= target)
    ratio = daemon.memory / loop.memory
    yield Row("memory of the generator, against the loop's", "<= 1.1", ratio, "x", ratio <= 1.1)
    times = [(_first_by_daemon(), _first_by_script()) for _ in range(_TIMES)]
    ratio = median(ours / script for ours, script in times)
    what = "the first prompt of a daemon, against a fresh script"
    yield Row(what, "<= 1.1", ratio, "x", ratio <= 1.1)


def _command(count: int, folder: str) -> list[str]:
    script = [sys.executable, "-m", "benchmarks.diffusers_loop"]
    return [*script, str(_PIPELINE), str(_SIZE), "cpu", "1", str(count), folder]


def _loop() -> Measured:
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            _command(_COUNT, folder), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as script,
        _peak(script.pid) as peak,
    ):
        assert script.stdout is not None
        seconds = float(script.stdout.read())
        return Measured(seconds, peak())


def _daemon(batch: int) -> Measured:
    with serving(f"generator_batch_size = {batch}\n") as station:
        _drop(station, "first", 10_000)
        station.wait_for(1)
        staged = station.root.path / "batch"
        staged.mkdir()
        for seed in range(_COUNT):
            (staged / f"{seed}.txt").write_text(_PROMPT.format(seed=seed))
        with _peak(_generator(station)) as peak:
            started = perf_counter()
            staged.rename(station.root.inbox / "batch")
            station.wait_for(1 + _COUNT)
            seconds = (perf_counter() - started) / _COUNT
            return Measured(seconds, peak())


def _first_by_daemon() -> float:
    """Seconds from the drop of a prompt to its result, on a daemon that has seen none."""
    with serving() as station:
        started = perf_counter()
        _drop(station, "first", 10_000)
        station.wait_for(1)
        return perf_counter() - started


def _first_by_script() -> float:
    """Seconds from the start of a script until its picture is there."""
    with tempfile.TemporaryDirectory() as folder:
        started = perf_counter()
        with subprocess.Popen(
            _command(0, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ):
            while not (Path(folder) / "10000.png").exists():
                sleep(0.001)
            return perf_counter() - started


def _drop(station: Station, name: str, seed: int) -> None:
    """Drop a prompt as programs do that want it taken at once: by a rename of the whole file."""
    staged = station.root.path / f"{name}.txt"
    staged.write_text(_PROMPT.format(seed=seed))
    staged.rename(station.root.inbox / staged.name)


def _generator(station: Station) -> int:
    """The process id of the generator."""
    while True:
        status = msgspec.json.decode(station.root.heartbeat.read_bytes())
        if pid := status["generator_pid"]:
            return int(pid)
        sleep(0.1)


@contextmanager
def _peak(pid: int) -> Iterator[Callable[[], int]]:
    """Give a function that returns the most memory in bytes that *pid* and its children had in the block."""
    stop, most = Event(), [0]

    def watch() -> None:
        while not stop.wait(0.1):
            most[0] = max(most[0], _memory(pid))

    thread = Thread(target=watch)
    thread.start()
    try:
        yield lambda: most[0]
    finally:
        stop.set()
        thread.join()


def _memory(pid: int) -> int:
    """Bytes that *pid* and its children have: what they share counts once, files as in the largest of them.

    Files that other programs map count in full, too, unlike in PSS; see proc_pid_smaps(5).
    """
    own, files = 0, 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            found = {"Rss": 0, "Anonymous": 0, "Pss_Anon": 0}
            for line in Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()[1:]:
                key, value, *_ = line.split()
                found[key.rstrip(":")] = int(value) * 1024
            own += found["Pss_Anon"]
            files = max(files, found["Rss"] - found["Anonymous"])
    except (psutil.NoSuchProcess, OSError):
        return 0
    return own + files
