"""Real daemons and commands, and what they leave in a root."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from fluxdrop.files.layout import GALLERY, Root, holder
from fluxdrop.gallery.gallery import page_of
from fluxdrop.jobs.overview import overview

SAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 120.0
"""Seconds after which a daemon that should have finished has failed; no test measures with it."""


class Daemon:
    """A real `fluxdrop run` process that serves a root."""

    def __init__(self, root: Root, process: subprocess.Popen[bytes]) -> None:
        self.root = root
        self.process = process

    def wait_until(self, is_so: Callable[[], object], what: str) -> None:
        """Wait for *is_so*; a daemon that ended meanwhile, or never gets there, fails the test."""
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            assert self.process.poll() is None, f"the daemon ended:\n{self.log_text()}"
            assert time.monotonic() < deadline, f"not so in time: {what}\n{self.log_text()}"
            time.sleep(0.05)

    def wait_for_steps(self) -> dict[str, Any]:
        """Wait until a generation is on its way; what the daemon says of it."""

        def current() -> dict[str, Any]:
            return json.loads(self.root.heartbeat.read_bytes())["current"] or {}

        self.wait_until(lambda: current().get("seconds_left"), "steps")
        return current()

    def wait_for_ends(self, count: int) -> None:
        """Wait until *count* jobs are done or failed."""
        self.wait_until(lambda: len(ends(self.root)) >= count, f"{count} ends")

    def log(self) -> list[dict[str, Any]]:
        """The lines of the daemon's log."""
        return [json.loads(line) for line in self.log_text().splitlines()]

    def log_text(self) -> str:
        """The daemon's log."""
        return (self.root.logs / "fluxdrop.log").read_text()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def serving(root: Root, **settings: object) -> Iterator[Daemon]:
    """A daemon on *root* that has announced itself; *settings* become FLUXDROP_ variables."""
    with started(root, **settings) as daemon:
        daemon.wait_until(lambda: holder(root) and root.heartbeat.exists(), "heartbeat")
        yield daemon


@contextmanager
def started(root: Root, *flags: str, **settings: object) -> Iterator[Daemon]:
    """`fluxdrop run` on *root*, as soon as there is a process; it is killed if the test leaves it."""
    with (root.path / "stderr.log").open("ab") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "fluxdrop", "run", "--root", str(root.path), *flags],
            env=environment(**settings),
            stdout=stderr,
            stderr=stderr,
        )
    daemon = Daemon(root, process)
    try:
        yield daemon
    finally:
        process.kill()
        process.wait()


def fluxdrop(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a `fluxdrop` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "fluxdrop", *map(str, arguments)],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def environment(**settings: object) -> dict[str, str]:
    """This process's environment with *settings* as FLUXDROP_ variables."""
    extra = {f"FLUXDROP_{key.upper()}": str(value) for key, value in settings.items()}
    # A crash in native code tells where.
    return {"PYTHONFAULTHANDLER": "1", **os.environ, **extra}


def results(root: Root) -> dict[str, dict[str, Any]]:
    """The result JSONs of *root* by their path below outputs/, without the failures."""
    return {
        str(path.relative_to(root.outputs)): json.loads(path.read_bytes())
        for path in ends(root)
        if not path.name.endswith(".error.json")
    }


def failures(root: Root) -> dict[str, dict[str, Any]]:
    """The error JSONs of *root* by their path below outputs/failed/."""
    return {
        str(path.relative_to(root.failed)): json.loads(path.read_bytes())
        for path in ends(root)
        if path.name.endswith(".error.json")
    }


def ends(root: Root) -> list[Path]:
    """All result and error JSONs of *root*."""
    return [path for path in files_below(root.outputs) if path.suffix == ".json"]


def degraded_reasons(root: Root) -> list[str]:
    """What `fluxdrop status` shows as degraded, without the process that it would take each time."""
    found: list[str] = overview(root).facts["degraded"]
    return found


def every_file(root: Root) -> set[str]:
    """The files that people see in *root*, by their paths, without the gallery's."""
    return {
        str(path.relative_to(root.path))
        for folder in (root.inbox, root.generated, root.preprocessed, root.outputs)
        for path in files_below(folder)
        if path != page_of(root)
    }


def files_below(folder: Path) -> list[Path]:
    """What is in *folder* and its subfolders and is no folder, without the gallery's pages.

    Path.rglob fails when a folder goes meanwhile, and a running daemon's gallery changes its own.
    """
    found = []
    for current, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != GALLERY]
        found += [Path(current, name) for name in names]
    return found


def wait_for_end(pid: int) -> None:
    """Wait until no process runs under *pid*; a zombie, which only waits to be reaped, does not."""
    deadline = time.monotonic() + PATIENCE
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"process {pid} still runs"
            time.sleep(0.02)
