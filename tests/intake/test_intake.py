"""What the intake claims, and what it leaves alone, with real files and real inotify."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from fluxdrop.config import Settings
from fluxdrop.files.layout import Root
from fluxdrop.intake.intake import Intake
from fluxdrop.jobs.claim import FAULT
from support.station import PATIENCE, SETTINGS, Station, events, noisy_png

pytestmark = pytest.mark.usefixtures("nothing_is_left")


NAMES = [
    "a.png",
    "Süße Katze 1.png",
    " .png",
    "-rf.png",
    "cat\udcff.png",
    "a\nb.png",
    "猫/犬/鳥.png",
]


@pytest.mark.parametrize("way", ["cp", "mv", "ln", "Python"])
def test_dropped(station: Station, png: bytes, tmp_path: Path, way: str) -> None:
    """However a file gets into the inbox, events tell of it, and it is claimed once, whole."""
    source = tmp_path / "source.png"
    source.write_bytes(png)
    if way == "Python":
        station.drop("a.png", png)
    else:
        subprocess.run([way, source, station.root.inbox / "a.png"], check=True)

    assert {"a.png": png} == station.take(1)
    assert [] == list(station.root.inbox.iterdir())
    assert [False] == [(folder / FAULT).exists() for folder in station.claims]
    assert 0 == station.intake.waiting


@pytest.mark.parametrize("found", ["at the start", "by events"])
def test_names(root: Root, png: bytes, found: str) -> None:
    """Names with spaces, in any script, of odd bytes and in subfolders are kept as they are."""
    station = Station(root)
    with closing(station.intake):
        if found == "by events":
            station.intake.step(timeout=0)
        for name in NAMES:
            station.drop(name, png)

        assert dict.fromkeys(NAMES, png) == station.take(len(NAMES))


def test_text_that_lay_there(root: Root) -> None:
    """A prompt that was whole long before the start is claimed in the first step."""
    settings = Settings(settle_seconds=0.02)
    station = Station(root, settings)
    with closing(station.intake):
        station.drop("a.txt", b"a red circle")
        time.sleep(0.04)
        station.intake.step(timeout=0)

        assert {"a.txt": b"a red circle"} == station.contents()


@pytest.mark.parametrize("name", ["a.png", "a.txt", "a.jpg"])
def test_slow_writer(root: Root, name: str) -> None:
    """A file that comes in 20 pieces is claimed after the last of them."""
    data = noisy_png()
    station = Station(root, Settings(settle_seconds=0.3, incomplete_seconds=30))
    size = len(data) // 20 + 1
    claimed_early = []
    with closing(station.intake):
        station.intake.step(timeout=0)
        with (root.inbox / name).open("wb") as file:
            for start in range(0, len(data), size):
                file.write(data[start : start + size])
                if start + size < len(data):
                    file.flush()
                    until = time.monotonic() + 0.02
                    while time.monotonic() < until:
                        station.intake.step(timeout=0.01)
                    claimed_early += station.claims

        assert {name: data} == station.take(1)
        assert [] == claimed_early


def test_renamed_when_done(station: Station, png: bytes) -> None:
    """A file in the making is left alone under its first name and claimed under its last."""
    part = station.drop("a.png.part", png[:100])
    station.steps()
    waiting = station.intake.waiting
    part.write_bytes(png)
    part.rename(station.root.inbox / "a.png")

    assert {"a.png": png} == station.take(1)
    assert 0 == waiting


def test_equal_names(station: Station, png: bytes) -> None:
    """A name that is dropped again after its file was claimed is another job."""
    for _ in range(3):
        count = len(station.claims)
        station.drop("a.png", png)
        station.step_until(lambda count=count: len(station.claims) > count)  # type: ignore[misc]

    assert ["a.png"] * 3 == [station.source(claim) for claim in station.claims]
    assert 3 == len(set(station.claims))


@pytest.mark.parametrize("way", ["moved", "copied"])
def test_subfolder(station: Station, png: bytes, tmp_path: Path, way: str) -> None:
    """A folder that comes whole brings all its files, and what is dropped into it later, too."""
    source = tmp_path / "cats"
    (source / "old").mkdir(parents=True)
    files = {"cats/a.png": png, "cats/old/b.png": png, "cats/old/c.txt": b"a cat"}
    for path, data in files.items():
        (tmp_path / path).write_bytes(data)
    if way == "moved":
        source.rename(station.root.inbox / "cats")
    else:
        shutil.copytree(source, station.root.inbox / "cats")
    station.take(3)
    (station.root.inbox / "cats" / "old" / "d.png").write_bytes(png)

    assert files | {"cats/old/d.png": png} == station.take(4)


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n", "it ends after 8 bytes, before its IEND chunk"),
        ("a.png", b"", "it is empty"),
        ("a.txt", b"", "it is empty"),
        ("a.pdf", b"%PDF", "its name is not that of a .txt prompt or a picture"),
    ],
)
def test_faults(station: Station, name: str, data: bytes, fault: str) -> None:
    """What never becomes whole is claimed after the deadline, untouched, with the reason."""
    station.drop(name, data)

    assert {name: data} == station.take(1)
    assert fault in (station.claims[0] / FAULT).read_text()


def test_many_are_left(root: Root, caplog: pytest.LogCaptureFixture) -> None:
    """Of very many irregular files the first are told, whatever bytes are in their names."""
    for number in range(150):
        os.mkfifo(root.inbox / f"{number:03} caf\udce9\n.png")
    station = Station(root)
    with closing(station.intake):
        for _ in range(3):
            station.intake._next_scan = 0
            station.steps()
        left = station.intake.skipped

    assert (100, 100) == (len(left), events(caplog).count("left alone"))
    assert {"caf\ufffd\ufffd.png"} == {path[4:] for path in left}


def test_irregular(station: Station, png: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """What is neither a file nor a folder is left alone; it is said once, however often it is
    scanned; and nothing behind it is claimed.
    """
    inbox = station.root.inbox
    secret = station.root.path / "secret.png"
    secret.write_bytes(png)
    os.mkfifo(inbox / "fifo.png")
    (inbox / "link.png").symlink_to(secret)
    station.drop("a.png", png)
    claimed = station.take(1)
    for _ in range(3):
        station.intake._next_scan = 0
        station.steps()

    assert {"a.png": png} == claimed == station.contents()
    assert {"fifo.png", "link.png"} == {path.name for path in inbox.iterdir()}
    assert dict.fromkeys(
        ["fifo.png", "link.png"], "it is not a regular file; symlinks are not followed"
    ) == (station.intake.skipped)
    assert 2 == events(caplog).count("left alone")
    assert ([], 2) == (station.intake.degraded, len(station.intake.irregular))
    assert 0 == station.intake.waiting


def test_irregular_hide_nothing(station: Station, png: bytes) -> None:
    """However many irregular files there are, a file that cannot be claimed is told as a reason."""
    for number in range(150):
        os.mkfifo(station.root.inbox / f"{number:03}.png")
    station.intake._next_scan = 0
    station.steps()

    station.intake._skip("z.png", "it cannot be claimed: Operation not permitted")

    assert [
        "inbox: z.png: it cannot be claimed: Operation not permitted"
    ] == station.intake.degraded


def test_claim_that_fails(station: Station, png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be claimed holds up no other, leaves no folder of a job behind, and is
    claimed by a later scan, when that is possible.
    """
    rename = os.rename

    def refuse(source: str, target: Path, **options: int) -> None:
        if source == "a.png":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), source)
        rename(source, target, **options)

    monkeypatch.setattr(os, "rename", refuse)
    station.drop("a.png", png)
    station.step_until(lambda: station.intake.skipped)
    station.drop("b.png", png)
    first = station.take(1)
    jobs = len(list(station.root.work.iterdir()))
    left = station.intake.skipped
    monkeypatch.setattr(os, "rename", rename)
    station.intake._next_scan = 0

    assert {"a.png": "it cannot be claimed: Operation not permitted"} == left
    assert ({"b.png": png}, 1) == (first, jobs)
    assert {"a.png": png, "b.png": png} == station.take(2)


def test_long_path(station: Station, png: bytes) -> None:
    """A file whose path has no room in a claim's name is claimed with that path."""
    path = f"{'/'.join(['d' * 250] * 5)}/{'a' * 251}.png"
    station.drop(path, png)

    assert {path: png} == station.take(1)


def test_close_before_the_first_step(root: Root) -> None:
    """An intake that never took a step can be closed."""
    intake = Intake(root, SETTINGS, lambda _: None, lambda _: True)
    intake.close()

    assert not intake.watching


def test_wake(station: Station) -> None:
    """A step that waits ends when it is woken from another thread."""
    waker = threading.Timer(0.05, station.intake.wake)
    waker.start()
    station.intake.step(timeout=PATIENCE)
    waker.join()

    assert 0 == station.intake.waiting


def test_side_files(root: Root, png: bytes) -> None:
    """What other programs leave is left alone, as is what the settings name, at a scan and at an event."""
    station = Station(
        root, Settings(settle_seconds=0.05, scan_seconds=3600, ignore=["Drafts", "*.v0.png"])
    )
    names = [
        "a.png:Zone.Identifier",
        "Icon\r",
        "@Recycle/b.png",
        "drafts/c.png",
        "d.V0.png",
        "e.xmp",
    ]
    station.drop("lay there/.stversions/a.png", png)
    with closing(station.intake):
        station.intake.step(timeout=0)
        for name in names:
            station.drop(name, png)
        station.drop("z.png", png)
        taken = station.take(1)
        station.steps()

        assert {"z.png": png} == taken == station.contents()
        assert 0 == station.intake.waiting
