"""The events that wait for the intake."""

from __future__ import annotations

from fluxdrop.intake.event_queue import EventQueue
from fluxdrop.intake.ready import Hint


def test_folders_once() -> None:
    """However often a folder is renamed, its events are one; those of files keep their order."""
    events = EventQueue(100)
    for path, hint in [("a", None), ("x.png", Hint.CLOSED), ("b", None), ("a", None)]:
        assert events.put(path, hint)
    assert events.put("x.png", Hint.CHANGED)

    files = [("x.png", Hint.CLOSED), ("x.png", Hint.CHANGED)]
    assert (files, ["a", "b"]) == events.take(0)
    assert ([], []) == events.take(0)


def test_limit() -> None:
    """A full queue takes no event, and a look at it ends although new ones arrive as fast as they are taken."""
    events = EventQueue(3)

    class Endless:
        """A queue that is never empty."""

        def get(self, timeout: float) -> tuple[str, Hint | None]:
            return "a.png", Hint.CHANGED

        def get_nowait(self) -> tuple[str, Hint | None]:
            return "a.png", Hint.CHANGED

    assert [True, True, True, False] == [events.put("a.png", Hint.CHANGED) for _ in range(4)]
    events._events = Endless()  # type: ignore[assignment]
    assert 3 == len(events.take(0)[0])


def test_wake() -> None:
    """Who waits for an event is woken without one."""
    events = EventQueue(3)
    events.wake()

    assert ([], []) == events.take(3600)
