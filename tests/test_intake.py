"""The intake with real files and real inotify, stepped by the test."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from PIL import Image

from fluxdrop.config import Settings
from fluxdrop.intake.claim import (
    INPUT,
    claim,
    claimed_fault,
    claimed_input,
    discard_empty,
    new_job_id,
)
from fluxdrop.intake.intake import Intake
from fluxdrop.jobs.job import JobRequest
from fluxdrop.jobs.submission import submit_request
from fluxdrop.layout import Root

PATIENCE = 60.0
"""Seconds after which an intake that should have claimed something has failed."""
SETTINGS = Settings(settle_seconds=0.1, incomplete_seconds=0.4, scan_seconds=3600)
"""With one scan at the start, whatever is found later is found by events."""


class Station:
    """An intake and what it claimed."""

    def __init__(self, root: Root, settings: Settings = SETTINGS) -> None:
        self.root = root
        self.room = 1_000_000
        self.claims: list[Path] = []
        self._kinds: Counter[bool] = Counter()
        self.intake = Intake(
            root, settings, self._accept, lambda is_prompt: self._kinds[is_prompt] < self.room
        )

    def _accept(self, claim: Path) -> None:
        self.claims.append(claim)
        self._kinds[self.source(claim).endswith(".txt")] += 1

    def source(self, claim: Path) -> str:
        """The path that *claim* had below the inbox."""
        return str(claimed_input(claim))

    def step_until(self, is_so: Callable[[], object]) -> None:
        """Step until *is_so*."""
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < deadline, (self.claims, self.intake.left)
            self.intake.step(longest=0.1)

    def steps(self, count: int = 3) -> None:
        """Take a few steps more, in which nothing is to happen."""
        for _ in range(count):
            self.intake.step(longest=0.01)

    def take(self, count: int) -> dict[str, bytes]:
        """Step until *count* files are claimed; return their contents by their paths."""
        self.step_until(lambda: len(self.claims) >= count)
        return self.contents()

    def contents(self) -> dict[str, bytes]:
        """The contents of what was claimed, by the paths below the inbox."""
        sources = [self.source(claim) for claim in self.claims]
        assert len(sources) == len(set(sources))
        return {
            source: (claim / INPUT / source).read_bytes()
            for source, claim in zip(sources, self.claims, strict=True)
        }

    def drop(self, path: str, data: bytes) -> Path:
        """Write *data* to *path* below the inbox."""
        target = self.root.inbox / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return target


@pytest.fixture
def station(root: Root) -> Iterator[Station]:
    """An intake that has made its first scan, of an empty inbox."""
    station = Station(root)
    with closing(station.intake):
        station.intake.step(longest=0)
        assert station.intake.watching
        yield station


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No test leaves a thread or a descriptor."""
    before = threading.active_count(), psutil.Process().num_fds()
    yield
    assert before == (threading.active_count(), psutil.Process().num_fds())


@pytest.fixture
def png(samples: Path) -> bytes:
    """A whole PNG."""
    return (samples / "round_circle_01.png").read_bytes()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged."""
    return [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]


def noisy_png() -> bytes:
    """A PNG too large to be written at once."""
    out = io.BytesIO()
    Image.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3)).save(out, "PNG")
    return out.getvalue()


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
    assert [""] == [claimed_fault(folder) for folder in station.claims]
    assert 0 == station.intake.waiting


@pytest.mark.parametrize("found", ["at the start", "by events"])
def test_names(root: Root, png: bytes, found: str) -> None:
    """Names with spaces, in any script, of odd bytes and in subfolders are kept as they are."""
    station = Station(root)
    with closing(station.intake):
        if found == "by events":
            station.intake.step(longest=0)
        for name in NAMES:
            station.drop(name, png)

        assert dict.fromkeys(NAMES, png) == station.take(len(NAMES))


def test_text_that_lay_there(root: Root) -> None:
    """A prompt that was whole long before the start is claimed in the first step."""
    settings = Settings(settle_seconds=0.02)
    station = Station(root, settings)
    with closing(station.intake):
        station.drop("a.txt", b"a red circle")
        time.sleep(settings.settle_seconds * 2)
        station.intake.step(longest=0)

        assert {"a.txt": b"a red circle"} == station.contents()


@pytest.mark.parametrize("name", ["a.png", "a.txt", "a.jpg"])
def test_slow_writer(root: Root, name: str) -> None:
    """A file that comes in 20 pieces is claimed after the last of them."""
    data = noisy_png()
    station = Station(root, Settings(settle_seconds=0.3, incomplete_seconds=30))
    size = len(data) // 20 + 1
    claimed_early = []
    with closing(station.intake):
        station.intake.step(longest=0)
        with (root.inbox / name).open("wb") as file:
            for start in range(0, len(data), size):
                file.write(data[start : start + size])
                if start + size < len(data):
                    file.flush()
                    until = time.monotonic() + 0.02
                    while time.monotonic() < until:
                        station.intake.step(longest=0.01)
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


def test_many_at_once(station: Station, png: bytes) -> None:
    """Of 2,000 files at once each is claimed exactly once, and no candidate is left over."""
    files = {f"{number % 7}/{number}.png": png for number in range(1000)}
    files |= {f"{number}.txt": b"a red circle" for number in range(1000)}
    for path, data in files.items():
        station.drop(path, data)

    assert files == station.take(2000)
    station.steps()
    assert (0, 0) == (station.intake.waiting, len(station.intake._due))
    assert 2000 == len(list(station.root.work.iterdir()))


@pytest.mark.parametrize("found", ["at the start", "by events"])
def test_more_than_are_remembered(
    root: Root, png: bytes, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any number of files only so many of a kind are remembered, the others' events too are
    forgotten, and all of them are claimed in the end, once. Each kind has room of its own.
    """
    monkeypatch.setattr("fluxdrop.intake.intake._MOST_WAITING", 10)
    monkeypatch.setattr("fluxdrop.intake.intake._MOST_EVENTS", 20)
    files = {f"{number}.png": png for number in range(100)}
    files |= {f"{number}.txt": b"a red circle" for number in range(100)}
    station = Station(root)
    with closing(station.intake):
        if found == "by events":
            station.intake.step(longest=0)
        station.room = 0
        for path, data in files.items():
            station.drop(path, data)
        waiting = 0
        for _ in range(20):
            station.intake.step(longest=0.02)
            waiting = max(waiting, len(station.intake._waiting))
        station.room = 1_000_000

        assert files == station.take(200)
        station.steps()
        assert (20, 0) == (waiting, station.intake.waiting)


def test_lost_event_of_the_last_byte(root: Root, png: bytes) -> None:
    """A picture that was seen half written, and of whose end no event tells, is found whole by the
    next scan and not at its deadline.
    """
    station = Station(root, Settings(settle_seconds=0.1, incomplete_seconds=3600, scan_seconds=0.2))
    with closing(station.intake):
        path = station.drop("a.png", png[:100])
        station.step_until(lambda: station.intake.waiting)
        station.intake._watch.close()  # type: ignore[union-attr]
        path.write_bytes(png)
        while not station.intake._events.empty():
            station.intake._events.get()

        assert {"a.png": png} == station.take(1)


def test_many_are_left(root: Root, caplog: pytest.LogCaptureFixture) -> None:
    """Of very many irregular files the first are told, whatever bytes are in their names."""
    for number in range(150):
        os.mkfifo(root.inbox / f"{number:03} caf\udce9\n.png")
    station = Station(root)
    with closing(station.intake):
        for _ in range(3):
            station.intake._next_scan = 0
            station.steps()
        left = station.intake.left

    assert (100, 100) == (len(left), events(caplog).count("left alone"))
    assert {"caf\ufffd\ufffd.png"} == {path[4:] for path in left}


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n", "it ends after 8 bytes, before its IEND chunk"),
        ("a.png", b"", "it is empty"),
        ("a.txt", b"", "it is empty"),
        ("a.pdf", b"%PDF", "its name ends in none of"),
    ],
)
def test_faults(station: Station, name: str, data: bytes, fault: str) -> None:
    """What never becomes whole is claimed after the deadline, untouched, with the reason."""
    station.drop(name, data)

    assert {name: data} == station.take(1)
    assert fault in claimed_fault(station.claims[0])


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
    assert dict.fromkeys(["fifo.png", "link.png"], "it is neither a file nor a folder") == (
        station.intake.left
    )
    assert 2 == events(caplog).count("left alone")
    assert 0 == station.intake.waiting


def test_room(station: Station, png: bytes) -> None:
    """No more is claimed than there is room for, in the order of arrival, and each kind has its
    own room.
    """
    station.room = 2
    for number in range(5):
        station.drop(f"{number}.png", png)
        station.steps()
    station.drop("a.txt", b"a red circle")
    first = set(station.take(3))
    station.steps()
    waiting = station.intake.waiting
    station.room = 5
    station.intake.wake()

    assert {"0.png", "1.png", "a.txt"} == first
    assert 3 == waiting
    assert 6 == len(station.take(6))


def test_event_while_it_waits_for_room(root: Root, png: bytes) -> None:
    """A picture that is whole and of which another event tells while it waits for room is claimed
    when there is room, and not at its deadline.
    """
    station = Station(root, Settings(settle_seconds=0.1, incomplete_seconds=3600))
    with closing(station.intake):
        station.room = 0
        path = station.drop("a.png", png)
        station.step_until(lambda: any(station.intake._whole.values()))
        path.open("ab").close()
        station.step_until(lambda: len(station.intake._whole[False]) == 2)
        station.room = 1

        assert {"a.png": png} == station.take(1)


@pytest.mark.parametrize("told", [True, False], ids=["with an event", "without"])
def test_rewritten_while_it_waits_for_room(station: Station, told: bool) -> None:
    """A file that was whole and is being rewritten when its turn comes waits for the new contents."""
    data, other = noisy_png(), noisy_png()
    station.room = 0
    path = station.drop("a.png", data)
    station.step_until(lambda: any(station.intake._whole.values()))
    path.write_bytes(other[:5000])
    if not told:
        # As after an overflow of the kernel's queue.
        station.intake._watch.close()  # type: ignore[union-attr]
        while not station.intake._events.empty():
            station.intake._events.get()
    station.room = 1
    station.steps()
    early = list(station.claims)
    path.write_bytes(other)

    assert [] == early
    assert {"a.png": other} == station.take(1)
    station.steps()
    assert 1 == len(station.claims)


def test_deleted_while_it_waits(station: Station, png: bytes) -> None:
    """A file that its owner takes back, before or after it was whole, is forgotten."""
    station.room = 0
    whole, half = station.drop("a.png", png), station.drop("b.png", png[:50])
    station.step_until(lambda: any(station.intake._whole.values()))
    whole.unlink()
    half.unlink()
    station.room = 9
    station.step_until(lambda: station.intake.waiting == 0)

    assert [] == station.claims
    assert [] == list(station.root.work.iterdir())


def test_requests(station: Station, png: bytes) -> None:
    """A request is claimed as soon as it is handed over, whatever lies about it."""
    source = station.root.path / "a.png"
    source.write_bytes(png)
    (station.root.requests / ".half").mkdir()
    (station.root.requests / "stray file").touch()
    (station.root.requests / "link").symlink_to(station.root.path)
    job = submit_request(station.root, JobRequest(replay_of="x"), "a.png", source)

    assert {"a.png": png} == station.take(1)
    assert [station.root.work / job] == station.claims


def test_request_that_cannot_be_claimed(station: Station, png: bytes) -> None:
    """A request that is in the way of itself is left alone, and others go on."""
    source = station.root.path / "a.png"
    source.write_bytes(png)
    (station.root.work / "0" / "taken").mkdir(parents=True)
    (station.root.requests / "0" / INPUT).mkdir(parents=True)
    job = submit_request(station.root, JobRequest(), "a.png", source)
    station.take(1)

    assert [station.root.work / job] == station.claims
    assert {str(station.root.requests / "0"): "it cannot be claimed: Directory not empty"} == (
        station.intake.left
    )


def test_claim_that_fails(station: Station, png: bytes) -> None:
    """A file that cannot be claimed holds up no other, leaves no folder of a job behind, and is
    claimed by a later scan, when that is possible.
    """
    deep = station.root.inbox
    # Such a file is reached step by step, and its claim's path is longer than Linux allows.
    fd = os.open(deep, os.O_RDONLY)
    while (room := 4090 - len(str(deep / "a.png"))) > 1:
        name = "d" * min(250, room - 1)
        deep = deep / name
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    with os.fdopen(os.open("a.png", os.O_WRONLY | os.O_CREAT, dir_fd=fd), "wb") as file:
        file.write(png)
    os.close(fd)
    path = str((deep / "a.png").relative_to(station.root.inbox))
    station.intake._next_scan = 0
    station.step_until(lambda: path in station.intake.left)
    station.drop("b.png", png)
    first = station.take(1)
    jobs = len(list(station.root.work.iterdir()))
    deep.rename(station.root.inbox / "short")

    assert {path: "it cannot be claimed: File name too long"} == station.intake.left
    assert ({"b.png": png}, 1) == (first, jobs)
    assert {"b.png": png, "short/a.png": png} == station.take(2)


@pytest.mark.parametrize("gone", ["inbox", "root"])
def test_inbox_goes_and_comes_back(
    station: Station, png: bytes, gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    """While the inbox, or all of the root, is away the intake lives on; when it is back, files in
    it are found by events again.
    """
    folder = station.root.inbox if gone == "inbox" else station.root.path
    away = folder.rename(folder.with_name("away"))
    for _ in range(3):
        station.intake._next_scan = 0
        station.steps()
    left = set(station.intake.left)
    watching = station.intake.watching
    away.rename(folder)
    station.intake._next_scan = 0
    station.steps()
    again = station.intake.watching
    station.drop("a.png", png)

    assert str(station.root.inbox) in left
    assert (False, True) == (watching, again)
    assert {"a.png": png} == station.take(1)
    assert (1 if gone == "inbox" else 2) == events(caplog).count("left alone")


def test_another_inbox(station: Station, png: bytes) -> None:
    """Another folder in the place of the inbox is watched instead of it from the next scan on."""
    inbox = station.root.inbox
    inbox.rename(inbox.with_name("old"))
    inbox.mkdir()
    watching = station.intake.watching
    station.intake._next_scan = 0
    station.steps()
    station.drop("a.png", png)

    assert not watching
    assert {"a.png": png} == station.take(1)


def test_inbox_is_a_symlink(root: Root, png: bytes) -> None:
    """Events arrive from an inbox that lies elsewhere, too."""
    root.inbox.rename(root.path / "elsewhere")
    root.inbox.symlink_to("elsewhere")
    station = Station(root)
    with closing(station.intake):
        station.intake.step(longest=0)
        station.drop("a.png", png)

        assert {"a.png": png} == station.take(1)


def test_dead_watch(station: Station, png: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A watch of which a thread ended is noticed and begun again by the next scan."""
    watch = station.intake._watch
    assert watch is not None
    watch._observer.stop()
    watch._observer.join()
    watching = station.intake.watching
    station.intake._next_scan = 0
    station.steps()
    station.drop("a.png", png)

    assert not watching
    assert {"a.png": png} == station.take(1)
    assert "the watch of the inbox ended and is begun again" in events(caplog)


LIMITED = """
import os, sys, threading
from pathlib import Path
from fluxdrop.config import Settings
from fluxdrop.intake.intake import Intake
from fluxdrop.layout import Root

claims = []
intake = Intake(Root(Path(sys.argv[1])), Settings(), claims.append, lambda _: True)
fds = os.listdir("/proc/self/fd")
for _ in range(5):
    intake._next_scan = 0
    intake.step(longest=0)
assert fds == os.listdir("/proc/self/fd")
print(len(claims), intake.watching, threading.active_count())
"""


@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_no_watch_can_be_made(root: Root, png: bytes, limit: str) -> None:
    """Where the system's limits allow no watch, files are found by scans, and the attempts leave
    neither a thread nor a descriptor behind.
    """
    (root.inbox / "a.png").write_bytes(png)
    command = f'echo 0 > /proc/sys/user/{limit} && exec "$1" -c "$2" "$3"'
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", command, "sh", sys.executable, LIMITED, root.path],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare:" in done.stderr or limit in done.stderr:
        pytest.skip("a limit of our own cannot be set here")

    assert ("1 False 1\n", 0) == (done.stdout, done.returncode)


def test_watch_that_fails_halfway(root: Root, png: bytes) -> None:
    """A watch that cannot be completed, as a folder is missing, leaves no thread and no descriptor;
    files are found all the same.
    """
    root.requests.rmdir()
    station = Station(root)
    with closing(station.intake):
        station.drop("a.png", png)
        for _ in range(3):
            station.intake._next_scan = 0
            station.steps()

        assert {"a.png": png} == station.contents()
        assert not station.intake.watching
        assert str(root.requests) in station.intake.left


def test_close_before_the_first_step(root: Root) -> None:
    """An intake that never took a step can be closed."""
    intake = Intake(root, SETTINGS, lambda _: None, lambda _: True)
    intake.close()

    assert not intake.watching


def test_wake(station: Station) -> None:
    """A step that waits ends when it is woken from another thread."""
    waker = threading.Timer(0.05, station.intake.wake)
    waker.start()
    station.intake.step(longest=PATIENCE)
    waker.join()

    assert 0 == station.intake.waiting


def test_job_ids() -> None:
    """Job ids sort by time, and no two are equal."""
    ids = [new_job_id() for _ in range(1000)]

    assert 1000 == len(set(ids))
    assert ids[0][:15] <= ids[-1][:15]


def test_claim(root: Root, png: bytes) -> None:
    """A claim is one rename into a new job's folder, which remembers the path in the inbox."""
    (root.inbox / "cats").mkdir()
    (root.inbox / "cats" / "a.png").write_bytes(png)
    inode = (root.inbox / "cats" / "a.png").stat().st_ino
    job = claim(root.inbox, root.work, "cats/a.png", lambda _: True)

    assert job is not None
    assert inode == (job / "input/cats/a.png").stat().st_ino
    assert "cats/a.png" == str(claimed_input(job))


@pytest.mark.parametrize("path", ["gone.png", "gone/a.png", "another.png"])
def test_nothing_to_claim(root: Root, path: str) -> None:
    """A file that is gone, or is not the one that was judged, is not claimed, and no folder for it
    is left.
    """
    (root.inbox / "another.png").touch()

    assert claim(root.inbox, root.work, path, lambda _: False) is None
    assert [] == list(root.work.iterdir())


def test_claim_through_a_symlink(root: Root, png: bytes) -> None:
    """Nothing is claimed from outside the inbox."""
    outside = root.path / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(png)
    (root.inbox / "cats").symlink_to(outside)

    with pytest.raises(NotADirectoryError):
        claim(root.inbox, root.work, "cats/a.png", lambda _: True)
    assert [] == list(root.work.iterdir())
    assert (outside / "a.png").exists()


def test_discard_empty(root: Root) -> None:
    """Of a claim that never came to be the folders go; where a file lies they stay."""
    for job in ("empty", "full"):
        (root.work / job / INPUT / "cats").mkdir(parents=True)
    (root.work / "full" / INPUT / "a.png").touch()
    for job in ("empty", "full"):
        discard_empty(root.work / job)

    assert claimed_input(root.work / "empty") is None
    assert ["full"] == [path.name for path in root.work.iterdir()]
    assert ["a.png"] == [path.name for path in (root.work / "full" / INPUT).iterdir()]
