"""Pictures dropped while a long generation runs, against the same while it is paused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import psutil

from benchmarks.table import Row

_SAMPLE = Path(__file__).parents[1] / "examples" / "angular_star_01.png"
_PICTURES = 60
_PAUSE_SECONDS = 0.1
_LONG = "a green ring\nSteps: 1000, CFG scale: 3, Size: 64x64, Batch size: 20\n"


def rows() -> Iterator[Row]:
    """The median time from drop to result beside a generation, divided by that without.

    The generator is paused for every other picture, so that whatever else the machine does weighs on
    both alike.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        fluxdrop = [sys.executable, "-m", "fluxdrop"]
        subprocess.run([*fluxdrop, "init", root], check=True, capture_output=True)
        (root / "fluxdrop.toml").write_text("max_steps = 1000\n")
        daemon = subprocess.Popen(
            [*fluxdrop, "run", "--root", root, "--engine", "julia"], stderr=subprocess.DEVNULL
        )
        try:
            (root / "inbox" / "long.txt").write_text(_LONG)
            status = _generating(daemon, root)
            alone, beside = [], []
            for number in range(_PICTURES):
                _signal(status["generator_pid"], signal.SIGSTOP)
                alone.append(_latency(root, f"alone-{number}"))
                _signal(status["generator_pid"], signal.SIGCONT)
                sleep(_PAUSE_SECONDS)
                beside.append(_latency(root, f"beside-{number}"))
            _generating(daemon, root)
        finally:
            daemon.terminate()
            daemon.wait()
    figure = median(beside) / median(alone)
    yield Row(
        "a picture beside a long generation, against none", "< 1.5", figure, "x", figure < 1.5
    )


def _signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to the generator *pid* and the processes that make its pictures."""
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        one.send_signal(number)


def _latency(root: Path, name: str) -> float:
    """Seconds from the drop of a picture to its result."""
    staged = root / f"{name}.png"
    shutil.copyfile(_SAMPLE, staged)
    result = root / "outputs" / f"{name}.json"
    started = perf_counter()
    staged.rename(root / "inbox" / staged.name)
    while not result.exists():
        sleep(0.0005)
    return perf_counter() - started


def _generating(daemon: subprocess.Popen[bytes], root: Path) -> dict[str, Any]:
    """Wait until steps are done; what the daemon says of itself."""
    path = root / ".fluxdrop" / "daemon.json"
    while True:
        assert daemon.poll() is None
        if path.exists():
            status: dict[str, Any] = json.loads(path.read_bytes())
            if status["current"] and status["current"]["steps_per_second"]:
                return status
        sleep(0.05)
