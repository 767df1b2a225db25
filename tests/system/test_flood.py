"""More files at once than events can tell of."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from PIL import Image

from fluxdrop.files.layout import Root
from fluxdrop.jobs.store import Store
from support.daemons import Daemon, serving

COUNT = 20_000
WARM = 200
"""So many pictures let the engine and the image library take what memory they need once."""
LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")


@contextmanager
def short_queue() -> Iterator[None]:
    """Whatever begins to watch meanwhile is told of 64 events at most before it reads them."""
    before = LIMIT.read_text()
    try:
        LIMIT.write_text("64")
    except OSError as error:
        pytest.skip(f"the length of inotify's queue cannot be set here: {error.strerror}")
    try:
        yield
    finally:
        LIMIT.write_text(before)


@contextmanager
def roomy_root() -> Iterator[Root]:
    """A root in memory where there is plenty of it, as 20,000 jobs on a disk take minutes."""
    shm = Path("/dev/shm")
    is_roomy = shm.is_dir() and shutil.disk_usage(shm).free > 4 * 1024**3
    with tempfile.TemporaryDirectory(dir=shm if is_roomy else None) as folder:
        root = Root(Path(folder))
        root.create()
        yield root


def megabytes(daemon: Daemon, what: str) -> float:
    """A line of the daemon's status in /proc, such as VmRSS."""
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{what}:"))
    return int(line.split()[1]) / 1024


def wait_for_results(daemon: Daemon, count: int) -> None:
    """Wait until there are *count* results, which the index counts at no cost."""
    with closing(Store(daemon.root.database, read_only=True)) as store:
        daemon.wait_until(lambda: count <= store.counts()["done"], f"{count} results")


def test_20000_at_once() -> None:
    """Of 20,000 pictures that come while the kernel forgets events, each is done exactly once, and
    the daemon, once warm, grows by less than 50 MB."""
    file = io.BytesIO()
    Image.new("L", (8, 8), 255).save(file, "PNG")
    with roomy_root() as root:
        settings = {"engine": "onnxruntime", "log_level": "error", "scan_seconds": 2}
        with ExitStack() as stack:
            with short_queue():
                daemon = stack.enter_context(serving(root, **settings))
            for number in range(WARM):
                (root.inbox / f"warm {number}.png").write_bytes(file.getvalue())
            wait_for_results(daemon, WARM)
            # From here on VmHWM is the most that it has had since.
            Path(f"/proc/{daemon.process.pid}/clear_refs").write_text("5")
            before = megabytes(daemon, "VmRSS")
            os.kill(daemon.process.pid, signal.SIGSTOP)
            for number in range(COUNT):
                (root.inbox / f"{number}.png").write_bytes(file.getvalue())
            os.kill(daemon.process.pid, signal.SIGCONT)
            for part in range(1, 21):
                wait_for_results(daemon, WARM + COUNT * part // 20)
            growth = megabytes(daemon, "VmHWM") - before
            daemon.stop()
        records = [json.loads(path.read_bytes()) for path in root.outputs.glob("*.json")]
        log = "".join(path.read_text() for path in root.logs.iterdir())

        assert "Inotify queue overflowed" in log
        assert {f"{number}.png" for number in range(COUNT)} == {
            record["source"]["file"] for record in records if "warm" not in record["source"]["file"]
        }
        assert WARM + COUNT == len(records)
        assert {"done"} == {record["status"] for record in records}
        assert [] == [*root.inbox.iterdir(), *root.work.iterdir(), *root.failed.iterdir()]
        assert growth < 50, f"{growth} MB more than {before} MB"
