"""The intake on a share: nothing tells of changes, and files go or turn stale under its hands.

No share can be mounted in a test. That the inbox is on one is said in place of /proc/self/mountinfo,
and a server's ESTALE is raised in place of the kernel; all else is real.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from fluxdrop.config import Settings
from fluxdrop.files.layout import Root
from support.station import Station

SETTINGS = Settings(settle_seconds=0.2, incomplete_seconds=3600, scan_seconds=0.05)


@pytest.fixture
def share(root: Root, monkeypatch: pytest.MonkeyPatch) -> Iterator[Station]:
    """An intake whose inbox is on NFS by what it is told."""
    monkeypatch.setattr("fluxdrop.intake.intake.filesystem_of", lambda _: "nfs4")
    station = Station(root, SETTINGS)
    with closing(station.intake):
        station.intake.step(timeout=0)
        yield station


def test_polled(share: Station, png: bytes) -> None:
    """Without events, what comes is found by scans: also what grows between them."""
    path = share.drop("cats/a.png", png[:100])
    share.step_until(lambda: share.intake.waiting)
    share.steps(10)
    early = list(share.claims)
    path.write_bytes(png)
    share.drop("b.txt", b"a red circle")

    assert (True, False, []) == (share.intake.polling, share.intake.watching, early)
    assert {"cats/a.png": png, "b.txt": b"a red circle"} == share.take(2)


def test_clock_of_the_server(share: Station) -> None:
    """A text whose times are long past, by a server's clock that is wrong, still has to settle here."""
    path = share.drop("a.txt", b"a red")
    os.utime(path, (0, 0))
    share.steps(3)
    early = list(share.claims)
    path.write_bytes(b"a red circle")

    assert [] == early
    assert {"a.txt": b"a red circle"} == share.take(1)


@pytest.mark.parametrize("gone", ["a.png", "cats"])
def test_vanished(share: Station, png: bytes, gone: str) -> None:
    """A file or folder that another machine takes away between two looks costs no other file."""
    share.drop("cats/a.png", png[:100])
    share.drop("b.png", png[:100])
    share.step_until(lambda: share.intake.waiting == 2)
    (share.root.inbox / "cats" / "a.png").unlink()
    if gone == "cats":
        (share.root.inbox / "cats").rmdir()
    share.drop("b.png", png)

    assert {"b.png": png} == share.take(1)
    share.step_until(lambda: share.intake.waiting == 0)
    assert {} == share.intake.skipped


@pytest.mark.parametrize("swap", ["another file", "symlink"])
def test_swapped(share: Station, png: bytes, swap: str) -> None:
    """What takes a whole file's place before it is claimed is looked at anew, even with the same size
    and time."""
    share.room = 0
    path = share.drop("a.png", png)
    share.step_until(lambda: any(share.intake._complete.values()))
    times = path.stat()
    if swap == "symlink":
        path.unlink()
        path.symlink_to("x" * len(png))
    else:
        other = share.root.path / "other"
        other.write_bytes(png[:-20] + bytes(20))
        other.rename(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns), follow_symlinks=False)
    share.room = 9
    share.steps(20)

    assert [] == share.claims
    assert (swap == "symlink") is ("a.png" in share.intake.skipped)


@pytest.mark.parametrize("call", ["stat", "open", "fstat", "pread", "rename", "scandir"])
def test_stale(share: Station, png: bytes, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale handle, whatever meets it, is told and passes: the file is claimed when it has."""
    real: Callable[..., Any] = getattr(os, call)
    stale: list[str] = []

    def fail(*arguments: Any, **options: Any) -> Any:
        if len(stale) < 3:
            stale.append(call)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(*arguments, **options)

    share.drop("a.png", png)
    monkeypatch.setattr(f"fluxdrop.{_WHERE[call]}.os.{call}", fail)
    share.step_until(lambda: share.intake.skipped)
    told = list(share.intake.skipped.values())

    assert {"a.png": png} == share.take(1)
    share.steps(10)
    assert ([call] * 3, 1) == (stale, len(share.claims))
    assert any("Stale file handle" in reason for reason in told)


_WHERE = {
    "stat": "intake.ready",
    "open": "intake.ready",
    "fstat": "intake.ready",
    "pread": "intake.ready",
    "rename": "jobs.claim",
    "scandir": "files.folders",
}
