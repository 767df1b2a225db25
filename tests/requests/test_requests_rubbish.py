"""What lies in .fluxdrop/requests/ and is no request is set aside."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.jobs.job import OPTIONS, JobOptions
from fluxdrop.jobs.job_id import new_job_id
from fluxdrop.requests.messages import MAX_JOBS, CancelRequest, ReplayRequest, answer_to, ask
from fluxdrop.requests.refused import Refused
from fluxdrop.requests.submission import wait_for_replays
from support.daemons import failures, results, serving
from support.desk import QUICK, Desk, done_job, nothing

pytestmark = pytest.mark.slow


def request_file(root: Root, data: bytes) -> str:
    name = new_job_id()
    (root.requests / f"{name}.request.json").write_bytes(data)
    return name


NO_REQUESTS: dict[str, bytes] = {
    "no JSON": b"{",
    "not UTF-8": b'{"type": "cancel", "job_ids": ["\xff"]}',
    "a newer version's": b'{"type": "improve", "job_id": "x"}',
    "with a field of a newer version": b'{"type": "replay", "job_id": "x", "twice": true}',
    "too large": b'{"type": "cancel", "job_ids": []}' + b" " * 65_536,
    "too many jobs": msgspec.json.encode(CancelRequest(["x"] * (MAX_JOBS + 1))),
    "empty": b"",
    "deep": b"[" * 60_000,
    "deep before its type": b'{"x":' + b"[" * 60_000,
}


@pytest.mark.parametrize("data", NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_refused(root: Root, desk: Desk, data: bytes) -> None:
    """What is no request is set aside, and its asker answered."""
    asked = request_file(root, data)
    desk.step()

    answer = answer_to(root, asked)
    assert answer is not None
    assert "request" == answer.kind
    assert [data] == [path.read_bytes() for path in root.refused.iterdir()]
    assert [] == list(root.requests.iterdir())


def test_wait_for_what_an_older_daemon_does_not_know(root: Root) -> None:
    """Waiting for a request that the daemon's version does not know ends, with a reason."""
    with serving(root, **QUICK):
        asked = request_file(root, b'{"type": "replay", "job_id": "x", "priority": 1}')
        (ended,) = wait_for_replays(root, [asked], nothing)

    assert isinstance(ended, FluxdropError)
    assert "not a request that this version of fluxdrop understands" in ended.message


def test_rubbish(root: Root, samples: Path) -> None:
    """Whatever lies in requests/, the daemon lives, does its work and has a line in the log for each: the
    rest is set aside, and nothing of it enters work/.
    """
    ids = [new_job_id() for _ in range(4)]
    (root.requests / "x.request.json").mkdir()
    (root.requests / "x.request.json/file").touch()
    (root.requests / f"{ids[0]}.request.json").mkdir()
    os.mkfifo(root.requests / f"{ids[1]}.request.json")
    (root.requests / f"{ids[2]}.request.json").symlink_to("/etc/hostname")
    (root.requests / os.fsdecode(b"\xff\xfe.request.json")).write_bytes(b"{}")
    os.mkfifo(root.requests / "fifo")
    (root.requests / "link").symlink_to(root.path)
    (root.requests / ("y" * 255)).touch()
    # A job as fluxdrop took it before, with a model and an input of the asker's.
    old = root.requests / ids[3]
    old.mkdir()
    shutil.copyfile(samples / "round_ring_01.png", old / "input=ring.png")
    (old / OPTIONS).write_bytes(msgspec.json.encode(JobOptions(model=str(root.inbox / ".m"))))
    (root.requests / ".half").write_bytes(b"{")
    with serving(root, **QUICK) as daemon:
        shutil.copyfile(samples / "round_circle_01.png", root.inbox / "circle.png")
        daemon.wait_for_ends(1)
        daemon.wait_until(lambda: len(list(root.requests.iterdir())) == 1, "all set aside")
        answers = [answer_to(root, asked) for asked in ids[:3]]
        assert 0 == daemon.stop()

    told = [line for line in daemon.log() if line["event"] == "request set aside"]
    assert ["circle.json"] == list(results(root))
    assert {} == failures(root)
    assert (9, 9) == (len(told), len(list(root.refused.iterdir())))
    assert ["request"] * 3 == [answer.kind if answer else None for answer in answers]
    assert [".half"] == [path.name for path in root.requests.iterdir()]


def test_rubbish_that_cannot_be_moved(
    root: Root, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be moved is told once and left, and requests go on."""
    (root.requests / "folder/deep").mkdir(parents=True)
    first = done_job(root)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "folder":
            raise PermissionError(13, "Permission denied", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    for _ in range(3):
        ask(root, ReplayRequest(first))
        desk.step()

    assert 3 == len(desk.accepted)
    assert ["folder"] == [path.name for path in root.requests.iterdir()]
    assert {"folder"} == desk.requests._stuck


def deep_folder(root: Root, levels: int) -> None:
    """A folder in requests/ with so many *levels*."""
    fd = os.open(root.requests, os.O_PATH)
    for number in range(levels):
        name = "d" if number else "a-deep"
        os.mkdir(name, 0o777, dir_fd=fd)
        below = os.open(name, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


@pytest.fixture
def deep_root(root: Root) -> Iterator[Root]:
    """A root in which a folder may lie too deep for pytest's own cleaning."""
    yield root
    subprocess.run(["rm", "-rf", root.path], check=True)


def test_deep_folder(deep_root: Root, desk: Desk) -> None:
    """A folder that is thousands of levels deep is removed from refused/ like another, over some turns, and holds up
    no request."""
    root = deep_root
    first = done_job(root)
    deep_folder(root, 3000)
    desk.step()
    (kept,) = root.refused.iterdir()
    # Within one second the ids do not tell which is older.
    kept.rename(root.refused / "19990101T000000-00000000")
    for number in range(200):
        (root.requests / f"b{number}").touch()
    for _ in range(30):
        ask(root, ReplayRequest(first))
        desk.step()

    assert 30 == len(desk.accepted)
    assert 100 == len(list(root.refused.iterdir()))
    assert all(path.is_file() for path in root.refused.iterdir())


def test_requests_before_odd_files(root: Root, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with setting odd files aside, requests are taken up."""
    first = done_job(root)
    (root.requests / "odd").touch()

    def fail(_self: Refused, _source: Path | None = None) -> str:
        raise RecursionError

    monkeypatch.setattr(Refused, "take", fail)
    ask(root, ReplayRequest(first))
    with pytest.raises(RecursionError):
        desk.step()

    assert 1 == len(desk.accepted)


def test_what_cannot_be_removed(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be removed from refused/ is tried once, and keeps nothing else there."""
    refused = Refused(root.refused)
    root.refused.mkdir()
    (root.refused / "a/b").mkdir(parents=True)
    for number in range(150):
        (root.refused / f"b{number:03}").touch()
    rmdir, tried = os.rmdir, []

    def refuse(name: str, *, dir_fd: int) -> None:
        if name == "a":
            tried.append(name)
            raise PermissionError(13, "Permission denied", name)
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", refuse)
    for _ in range(4):
        refused.forget_old()
    times = len(tried)
    refused.forget_old()

    assert times == len(tried)
    assert ["a", "b050"] == sorted(path.name for path in root.refused.iterdir())[:2]


@pytest.mark.parametrize("years", [-1, 0, 100])
def test_unfinished_files(
    root: Root, desk: Desk, monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    """A dot file, of whatever time it says it is, is set aside when it has been there for an hour, and its status is
    asked for once."""
    path = root.requests / ".half"
    path.touch()
    moment = time.time() + years * 31_557_600
    os.utime(path, (moment, moment))
    asked = []
    now = time.time
    monkeypatch.setattr(time, "time", lambda: asked.append(1) or now())  # type: ignore[func-returns-value]
    desk.step()
    desk.step()
    times, early = len(asked), path.exists()
    later = time.monotonic() + 3601
    monkeypatch.setattr(time, "monotonic", lambda: later)
    desk.step()

    assert (years >= 0, years >= 0) == (early, times == 1 and early)
    assert not path.exists()


def test_flood(root: Root, desk: Desk) -> None:
    """However much lies in requests/, few of it are remembered and the newest of it are kept."""
    first = done_job(root)
    data = msgspec.json.encode(ReplayRequest(first))
    for number in range(5000):
        (root.requests / f"20261126T120000-{number:08x}.request.json").write_bytes(data)
        (root.requests / f"rubbish {number}").touch()
    desk.room = {True: 0, False: 0}
    for _ in range(4):
        desk.step()

    assert (5000, 4096) == (len(desk.requests), len(desk.requests._known))
    assert 100 >= len(list(root.refused.iterdir()))
    assert 5000 - 4 * 64 == sum(path.name.startswith("rubbish") for path in root.requests.iterdir())
