"""A daemon of one's own on a root of its own, as the benchmarks need it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.files.layout import Root
from fluxdrop.jobs.store import Store
from fluxdrop.predict.bundle import Bundle
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.tensor import to_tensor

SETTINGS = Settings(engine="julia")
_SAMPLES = Path(__file__).parents[1] / "examples"


class Station(NamedTuple):
    """A root and the pid of the daemon that serves it, its worker being warm."""

    root: Root
    pid: int

    def wait_for(self, done: int) -> None:
        """Wait until *done* jobs have a durable result."""
        with closing(Store(self.root.database, read_only=True)) as store:
            while store.counts()["done"] < done:
                sleep(0.005)


@contextmanager
def serving(settings: str = "", engine: str = SETTINGS.engine) -> Iterator[Station]:
    """A daemon with the *engine* and the *settings*, lines of its fluxdrop.toml; ended with the block."""
    folder = tempfile.mkdtemp()
    root = Root(Path(folder))
    root.create()
    (root.path / "fluxdrop.toml").write_text(settings)
    command = [sys.executable, "-m", "fluxdrop", "run", "--root", folder]
    daemon = subprocess.Popen([*command, "--engine", engine], stderr=subprocess.DEVNULL)
    try:
        while not root.heartbeat.exists():
            assert daemon.poll() is None
            sleep(0.01)
        yield Station(root, daemon.pid)
    finally:
        daemon.terminate()
        daemon.wait()


def pictures(folder: Path, count: int) -> None:
    """Fill *folder*, a new one, with *count* small PNGs. Whoever is measured next does not have to wait
    until these are on the disk, nor what was written before.
    """
    folder.mkdir()
    samples = sorted(_SAMPLES.glob("*.png"))
    for number in range(count):
        shutil.copyfile(samples[number % len(samples)], folder / f"{number:05}.png")
    os.sync()


def seconds_a_picture(count: int) -> float:
    """By a warm daemon of its own, from the drop of *count* pictures, by one rename of their folder, to
    the last durable result.
    """
    return flood(count)[0]


def flood(count: int) -> tuple[float, float]:
    """What `seconds_a_picture` measures, and the most memory that the daemon had meanwhile, in MB."""
    with serving() as station:
        pictures(station.root.path / "batch", count)
        started = perf_counter()
        (station.root.path / "batch").rename(station.root.inbox / "batch")
        station.wait_for(count)
        return (perf_counter() - started) / count, _peak_megabytes(station.pid)


def _peak_megabytes(pid: int) -> float:
    """Return the most resident memory that a process had (proc_pid_status(5), VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024 / 1e6
    return 0.0


def tensor_of(path: Path, bundle: Bundle) -> NDArray[np.float32]:
    """What *bundle* sees of the picture *path*, made as the daemon makes it."""
    image, _ = open_picture(
        path, max_file_bytes=SETTINGS.max_file_bytes, max_pixels=SETTINGS.max_pixels
    )
    return to_tensor(image, bundle.spec.input)
