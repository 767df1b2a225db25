"""A stage whose handler fails before its first item, between items and at its end."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError, Outage
from fluxdrop.service.stages.stage import Stage
from support.stages import Clock, Number, Numbers, Once, context_of, run_stage

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
DOWN = Outage("The engine does not start", kind="worker")


class Opening(Numbers):
    """Calls *get_ready* when it is opened."""

    def __init__(self, get_ready: Callable[[], None]) -> None:
        super().__init__(lambda _item: None)
        self._get_ready = get_ready

    def open(self) -> None:
        """See `Handler.open`."""
        self._get_ready()


def test_open_that_fails(tmp_path: Path) -> None:
    """What cannot be opened ends the start: the stage says why, is ready, and takes no item."""
    error = FluxdropError("There is no Julia on this machine", kind="julia")
    handler = Opening(Once(error))

    stage = run_stage(handler, tmp_path, Number(1))

    assert (error, True) == (stage.failure, stage.ready.is_set())
    assert [] == handler.batches


def test_open_that_has_to_wait(tmp_path: Path) -> None:
    """What passes while a handler gets ready is waited out, before the first item."""
    clock = Clock()
    handler = Opening(Once(DOWN, FULL))

    stage = run_stage(handler, tmp_path, Number(1), clock=clock)

    assert ([0.5, 1], [[1]]) == (clock.waits, handler.batches)
    assert stage.failure is None


IDLE_ERRORS = {
    "full": FULL,
    "outage": DOWN,
    "memory": MemoryError(),
    "value": ValueError("it is so"),
    "reason": FluxdropError("It hangs"),
}


@pytest.mark.parametrize("error", IDLE_ERRORS.values(), ids=IDLE_ERRORS)
def test_idle_check_that_fails(tmp_path: Path, error: Exception) -> None:
    """Whatever goes wrong in a stage's idle check, it goes on and takes the next item."""
    calls: list[None] = []
    worked = threading.Event()
    fail = Once(error)

    def on_idle() -> None:
        # The item that comes is the answer to the second call: the first did not end the stage.
        calls.append(None)
        if len(calls) == 2:
            stage.put_now(Number(1))
        fail()

    handler = Numbers(lambda _item: worked.set(), on_idle=on_idle, idle_check_seconds=0.01)
    stage = Stage(handler, context_of(tmp_path))
    stage.start()
    has_worked = worked.wait(30)
    ended = stage.finish(60)

    assert (True, True, None) == (has_worked, ended, stage.failure)


def test_close_that_fails(tmp_path: Path) -> None:
    """What goes wrong at the end of a stage counts, and the stage ends."""

    class Closing(Numbers):
        def close(self) -> None:
            raise ValueError

    context = context_of(tmp_path)
    stage = run_stage(Closing(lambda _item: None), tmp_path, Number(1), context=context)

    assert [1] == list(context.defects.counts().values())
    assert stage.failure is None
