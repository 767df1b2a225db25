"""When the parts of the daemon last made progress."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from fluxdrop.service.stages.stage import Context, Stage
from fluxdrop.service.supervision import liveness
from fluxdrop.service.supervision.liveness import Liveness, report_progress
from support.stages import Number, Numbers


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock of seconds that goes on only when the test sets it."""
    made = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(liveness, "time", SimpleNamespace(monotonic=lambda: made.seconds))
    return made


def test_silence(clock: SimpleNamespace) -> None:
    """A part has made progress when it is made; silence grows from there, and from each touch."""
    liveness = Liveness()
    clock.seconds += 5
    before = liveness.silence
    liveness.touch()
    clock.seconds += 2

    assert (5, 2) == (before, liveness.silence)


def test_time_of_the_last_progress(clock: SimpleNamespace) -> None:
    """The time of the last progress is told as a time of day, in UTC."""
    liveness = Liveness()
    clock.seconds += 90
    earliest = datetime.now(UTC) - timedelta(seconds=90, milliseconds=1)
    last = datetime.fromisoformat(liveness.last)
    latest = datetime.now(UTC) - timedelta(seconds=90)

    assert earliest <= last <= latest
    assert liveness.last.endswith("Z")


def test_progress_of_a_thread(clock: SimpleNamespace) -> None:
    """What reports progress touches the part whose thread it is on, and no other; on another thread it does nothing."""
    parts = {name: Liveness() for name in ("working", "idle")}
    bound, go = threading.Barrier(3), threading.Event()

    def work(name: str) -> None:
        parts[name].bind_thread()
        bound.wait(60)
        go.wait(60)
        if name == "working":
            report_progress()

    threads = [threading.Thread(target=work, args=(name,)) for name in parts]
    for thread in threads:
        thread.start()
    bound.wait(60)
    clock.seconds += 7
    report_progress()
    before = [liveness.silence for liveness in parts.values()]
    go.set()
    for thread in threads:
        thread.join(60)

    assert [7, 7] == before
    assert [0, 7] == [liveness.silence for liveness in parts.values()]


@pytest.mark.slow
def test_stage_that_is_stuck(tmp_path: Path) -> None:
    """A stage with work that does not move is stuck; an idle one, or one that is held up by the
    stage behind it, is not; while idle it runs its idle check."""
    go, checked = threading.Event(), threading.Event()
    context = Context(tmp_path)
    handler = Numbers(lambda _item: go.wait(), on_idle=checked.set, idle_check_seconds=0.01)
    slow = Stage(handler, context, limit=1)
    before = Stage(Numbers(slow.put), context, limit=9)
    for stage in (slow, before):
        stage.start()
    assert checked.wait(30)
    for number in range(4):
        before.put(Number(number))
    while slow.liveness.silence < 1.0:
        go.wait(0.05)
    found = slow.stuck(1.0), before.stuck(1.0)
    go.set()
    ended = before.finish(30), slow.finish(30)

    assert (True, False) == found
    assert (True, True) == ended
    assert not slow.stuck(0.0)
