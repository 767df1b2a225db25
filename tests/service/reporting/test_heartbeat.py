"""The heartbeat file: when it is written, on a full disk too, and what of it can be read."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from fluxdrop.files import durable
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.service.reporting import heartbeat
from fluxdrop.service.reporting.heartbeat import Current, Heartbeat, read, summary
from fluxdrop.service.supervision.liveness import Liveness
from support.statuses import daemon_status


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock of seconds that goes on only when the test sets it."""
    made = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=lambda: made.seconds))
    return made


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No new file can be written."""

    def fail(path: Path, _data: bytes, *, sync: bool) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(durable, "write", fail)


def test_round_trip(tmp_path: Path) -> None:
    """What was written last is read again, with the time of each part's last progress."""
    path, liveness = tmp_path / "daemon.json", Liveness()
    Heartbeat(path).write(daemon_status(inbox=3, degraded=["disk: it is full"]), {"scan": liveness})
    found = read(path)

    assert found is not None
    assert (3, ["disk: it is full"], ["scan"]) == (
        found.inbox,
        found.degraded,
        list(found.progress),
    )


@pytest.mark.parametrize(
    ("changed", "seconds", "expected"),
    [(False, 9.9, 0), (False, 10.0, 1), (True, 0.4, 0), (True, 0.5, 1)],
)
def test_when_it_is_written(
    tmp_path: Path, clock: SimpleNamespace, changed: bool, seconds: float, expected: int
) -> None:
    """A changed status is written after half a second, an unchanged one after ten; times of progress do not count."""
    path, writer = tmp_path / "daemon.json", Heartbeat(tmp_path / "daemon.json")
    writer.write(daemon_status())
    before = path.stat().st_ino
    clock.seconds += seconds
    writer.write(daemon_status(inbox=int(changed)), {"scan": Liveness()})

    assert expected == (path.stat().st_ino != before)


@pytest.mark.usefixtures("full_disk")
def test_full_disk(tmp_path: Path) -> None:
    """On a full disk the file is overwritten in place, and nothing of a longer status is left behind."""
    path = tmp_path / "daemon.json"
    path.write_bytes(b"x" * 3000)
    before = path.stat().st_ino
    Heartbeat(path).write(daemon_status(inbox=7))
    found = read(path)

    assert found is not None
    assert (7, before) == (found.inbox, path.stat().st_ino)


@pytest.mark.usefixtures("full_disk")
def test_full_disk_without_room(tmp_path: Path, clock: SimpleNamespace) -> None:
    """A status that needs more blocks than the file has is not written, and the next one is tried at once."""
    path = tmp_path / "daemon.json"
    path.touch()
    writer = Heartbeat(path)
    with pytest.raises(OSError, match="No space"):
        writer.write(daemon_status(degraded=["x" * 5000]))
    writer.write(daemon_status())

    assert daemon_status() == read(path)


@pytest.mark.usefixtures("full_disk")
def test_full_disk_without_a_file(tmp_path: Path) -> None:
    """Where there is no file yet, a full disk is an error, and no file is made."""
    with pytest.raises(FileNotFoundError):
        Heartbeat(tmp_path / "daemon.json").write(daemon_status())

    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("data", [None, b"", b"{", b'{"pid": 1}', b"\xff", b"[]"])
def test_what_cannot_be_read(tmp_path: Path, data: bytes | None) -> None:
    """A file that is missing, damaged or another version's is read as None."""
    path = tmp_path / "daemon.json"
    if data is not None:
        path.write_bytes(data)

    assert read(path) is None


def test_summary() -> None:
    """The line for the service manager says what runs, what waits, what is generated and what is degraded."""
    engine = EngineInfo(engine="julia", backend="plain", version="1.11.7")
    current = Current(job_id="1", file="cat.txt", pictures=1)
    busy = daemon_status(
        engine=engine,
        inbox=2,
        stages={"generate": 1, "predict": 3},
        current=current,
        degraded=["disk: it is full"],
    )

    assert "0 in the inbox, 0 in hand" == summary(daemon_status())
    assert summary(busy) == (
        "round-or-angular on julia 1.11.7 (plain); 2 in the inbox, 4 in hand; generating cat.txt;"
        " disk: it is full"
    )
