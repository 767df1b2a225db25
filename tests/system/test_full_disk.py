"""A disk that fills up under a real daemon: a small tmpfs as root, and a ballast file."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fluxdrop.files.layout import Root
from support.daemons import (
    Daemon,
    degraded_reasons,
    every_file,
    failures,
    fluxdrop,
    results,
    serving,
    started,
)
from support.disk_images import fill
from support.filesystems import tmpfs
from support.needs import needs_generation

# More than are in hand at a time, so that some have not been begun when others are done.
PICTURES = 200


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    """A root on a filesystem of 32 MB."""
    made = Root(tmp_path / "disk")
    made.path.mkdir()
    with tmpfs(made.path, "32m"):
        made.create()
        yield made


def drop(root: Root, samples: Path) -> set[str]:
    """Drop the pictures; the results that are to come of them."""
    originals = sorted(samples.glob("*.png"))
    for number in range(PICTURES):
        shutil.copyfile(originals[number % len(originals)], root.inbox / f"{number:03}.png")
    return {f"{number:03}.json" for number in range(PICTURES)}


def assert_nothing_is_torn(root: Root) -> None:
    """Every JSON, picture and tensor that people see is whole, and the index is."""
    for record in results(root).values():
        for path in (record["image"]["file"], record["preprocessed"]["file"]):
            assert (root.path / path).stat().st_size > 0
    with closing(sqlite3.connect(f"file:{root.database}?mode=ro", uri=True)) as index:
        assert [("ok",)] == index.execute("PRAGMA integrity_check").fetchall()


def assert_recovered(daemon: Daemon, expected: set[str]) -> None:
    """All is done, nothing is left over, each outage's end is in the log as its beginning is."""
    root = daemon.root
    daemon.wait_until(lambda: not degraded_reasons(root), "no outage")
    assert 0 == daemon.stop()
    assert expected == set(results(root))
    assert not failures(root)
    assert not list(root.work.iterdir())
    assert not [name for name in every_file(root) if name.endswith((".tmp", ".part"))]
    assert_nothing_is_torn(root)
    told = [line for line in daemon.log() if line["event"].startswith("outage")]
    begun = [line["part"] for line in told if line["event"] == "outage begins"]
    ended = [line["part"] for line in told if line["event"] == "outage ended"]
    # The first lines of the story may be those that the full disk did not take.
    assert set(begun) <= set(ended)
    assert ended


def test_full_in_mid_work(root: Root, samples: Path) -> None:
    """When the disk fills up over pictures in work the daemon pauses and says so; when there is
    room it goes on by itself, and nothing is lost or torn."""
    expected = drop(root, samples)
    with serving(root, engine="onnxruntime") as daemon:
        daemon.wait_for_ends(3)
        daemon.process.send_signal(signal.SIGSTOP)
        ballast = fill(root)
        daemon.process.send_signal(signal.SIGCONT)
        daemon.wait_until(
            lambda: any("No space" in line for line in degraded_reasons(root)), "an outage"
        )
        shown = fluxdrop("status", "--root", root.path).stdout
        assert_nothing_is_torn(root)
        held = len(results(root))
        ballast.unlink()
        daemon.wait_for_ends(PICTURES)
        assert_recovered(daemon, expected)

    assert held < PICTURES
    assert "No space left on device" in shown


def test_full_from_the_start(root: Root, samples: Path) -> None:
    """A daemon that is started on a full disk waits for room, which `status` tells."""
    expected = drop(root, samples)
    ballast = fill(root)
    with started(root, engine="onnxruntime") as daemon:
        daemon.wait_until(lambda: degraded_reasons(root), "an outage")
        told = degraded_reasons(root)
        assert not results(root)
        ballast.unlink()
        daemon.wait_for_ends(PICTURES)
        assert_recovered(daemon, expected)

    assert [f"disk: {root.path} is full"] == told


@needs_generation
def test_full_in_mid_generation(root: Root) -> None:
    """A picture for which the disk has no room is kept, written when there is room, and made once."""
    (root.inbox / "circle.txt").write_text("a circle\nSteps: 200, Seed: 1, Size: 64x64\n")
    with serving(root, engine="onnxruntime", max_steps=1000) as daemon:
        daemon.wait_for_steps()
        ballast = fill(root)
        daemon.wait_until(
            lambda: any("generate: No space" in line for line in degraded_reasons(root)),
            "an outage",
        )
        ballast.unlink()
        daemon.wait_for_ends(1)
        assert_recovered(daemon, {"circle.json"})
        lines = [line["event"] for line in daemon.log()]

    assert 1 == lines.count("generator started")
    assert 1 == results(root)["circle.json"]["attempts"]
