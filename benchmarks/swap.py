"""A change of the model while pictures are predicted: how long no result comes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from statistics import median
from threading import Event, Thread
from time import perf_counter, sleep

from benchmarks.station import SETTINGS, Station, pictures, serving
from benchmarks.table import Row
from fluxdrop.jobs.store import Store
from fluxdrop.predict.bundle import load_bundle

_COUNT = 8_000
_BATCH = 128
"""How many pictures are published at once, so that their results come together."""
_ROUNDS = 3


def rows() -> Iterator[Row]:
    """The longest time between two results, in batches: what the daemon takes for as many as are published at once."""
    figure = median(_longest_gap() for _ in range(_ROUNDS))
    what = "model swap under load: longest time without a result"
    yield Row(what, "<= 2", figure, "batches", figure <= 2)


def _longest_gap() -> float:
    with serving() as station:
        other = station.root.models / "other"
        shutil.copytree(load_bundle(SETTINGS.model).folder, other)
        batch = station.root.path / "batch"
        pictures(batch, _COUNT)
        done = Event()
        use = Thread(target=_use, args=(station, done))
        started = last = perf_counter()
        batch.rename(station.root.inbox / "batch")
        longest, seen = 0.0, 0
        with closing(Store(station.root.database, read_only=True)) as store:
            while seen < _COUNT:
                sleep(0.001)
                found = store.counts()["done"]
                if found == seen:
                    continue
                now = perf_counter()
                if not seen:
                    use.start()
                elif not done.is_set():
                    longest = max(longest, now - last)
                last, seen = now, found
        use.join()
        return longest / (_BATCH * (last - started) / _COUNT)


def _use(station: Station, done: Event) -> None:
    """Have the daemon use the other model, which the command waits for."""
    command = [sys.executable, "-m", "fluxdrop", "model", "use", "other"]
    subprocess.run([*command, "--root", station.root.path], check=True, stdout=subprocess.DEVNULL)
    # The old worker ends after that.
    sleep(1)
    done.set()
