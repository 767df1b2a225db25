"""Files that wait in the inbox for room, and more of them than are remembered."""

from __future__ import annotations

from contextlib import closing

import pytest

from fluxdrop.config import Settings
from fluxdrop.files.layout import Root
from support.station import Station, noisy_png

pytestmark = pytest.mark.usefixtures("nothing_is_left")


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
    monkeypatch.setattr("fluxdrop.intake.intake._MAX_WAITING", 10)
    monkeypatch.setattr("fluxdrop.intake.intake._MAX_EVENTS", 20)
    files = {f"{number}.png": png for number in range(100)}
    files |= {f"{number}.txt": b"a red circle" for number in range(100)}
    station = Station(root)
    with closing(station.intake):
        if found == "by events":
            station.intake.step(timeout=0)
        station.room = 0
        for path, data in files.items():
            station.drop(path, data)
        waiting = 0
        for _ in range(20):
            station.intake.step(timeout=0.02)
            waiting = max(waiting, len(station.intake._waiting))
        station.room = 1_000_000

        assert files == station.take(200)
        station.steps()
        assert (20, 0) == (waiting, station.intake.waiting)


@pytest.mark.parametrize("found", ["by scans", "by events"])
def test_unfinished_keep_nothing_out(
    root: Root, png: bytes, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many files are never whole, each of the others is claimed, `degraded` tells of the crowd meanwhile, and
    nothing grows with their number."""
    monkeypatch.setattr("fluxdrop.intake.intake._MAX_WAITING", 10)
    settings = Settings(settle_seconds=0.1, incomplete_seconds=3600, scan_seconds=3600)
    station = Station(root, settings)
    for number in range(100):
        station.drop(f"{number}.png", png[:8])
    with closing(station.intake):
        if found == "by events":
            station.steps(20)
        files = {f"whole{number}.png": png for number in range(5)}
        for path, data in files.items():
            station.drop(path, data)

        def is_done() -> bool:
            if found == "by scans":
                station.intake._next_scan = 0
            return len(station.claims) == len(files)

        station.step_until(is_done)
        degraded = station.intake.degraded
        for number in range(100):
            (root.inbox / f"{number}.png").unlink()
        for _ in range(3):
            station.intake._next_scan = 0
            station.steps()

        assert files == station.contents()
        assert ["inbox: more than 10 files wait there"] == [text[:36] for text in degraded]
        assert len(station.intake._due) <= 40
        assert (0, []) == (station.intake.waiting, station.intake.degraded)
        assert not any(station.intake._unfinished.values())


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
        station.step_until(lambda: any(station.intake._complete.values()))
        path.open("ab").close()
        station.step_until(lambda: len(station.intake._complete[False]) == 2)
        station.room = 1

        assert {"a.png": png} == station.take(1)


@pytest.mark.parametrize("told", [True, False], ids=["with an event", "without"])
def test_rewritten_while_it_waits_for_room(station: Station, told: bool) -> None:
    """A file that was whole and is being rewritten when its turn comes waits for the new contents."""
    data, other = noisy_png(), noisy_png()
    station.room = 0
    path = station.drop("a.png", data)
    station.step_until(lambda: any(station.intake._complete.values()))
    path.write_bytes(other[:5000])
    if not told:
        # As after an overflow of the kernel's queue.
        station.intake._watch.close()  # type: ignore[union-attr]
        station.intake._events.take(0)
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
    station.step_until(lambda: any(station.intake._complete.values()))
    whole.unlink()
    half.unlink()
    station.room = 9
    station.step_until(lambda: station.intake.waiting == 0)

    assert [] == station.claims
    assert [] == list(station.root.work.iterdir())
