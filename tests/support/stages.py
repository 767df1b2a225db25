"""Stages with handlers of the tests' own, and a clock that waits for nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.job import Job
from fluxdrop.service.shutdown import Shutdown
from fluxdrop.service.stages.handler import Batch, Handler, Item
from fluxdrop.service.stages.stage import Context, Stage

T = TypeVar("T", bound=Item)


@dataclass(frozen=True, eq=False)
class Number:
    """An item; *job* is the one that it is about, if it is about one."""

    number: int
    job: Job | None = None


@dataclass
class Clock:
    """Waits for no time at all and keeps account of it; *then* is called with each wait so far."""

    waits: list[float] = field(default_factory=list)
    then: Callable[[list[float]], None] = lambda _waits: None

    def wait(self, seconds: float) -> None:
        """Wait for *seconds*, as it were."""
        self.waits.append(seconds)
        self.then(self.waits)


class Numbers(Handler[Number]):
    """Calls *work* with each item of a batch, settles it, and keeps what failed with the reasons."""

    name = "numbers"

    def __init__(
        self,
        work: Callable[[Number], object],
        *,
        batch_size: int = 1,
        on_idle: Callable[[], object] = lambda: None,
        idle_check_seconds: float | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.idle_check_seconds = idle_check_seconds
        self.batches: list[list[int]] = []
        """The numbers that were open in each call of `handle`."""
        self.failed: list[tuple[int, FluxdropError]] = []
        self._work = work
        self._on_idle = on_idle

    def handle(self, batch: Batch[Number]) -> None:
        """See `Handler.handle`."""
        self.batches.append([item.number for item in batch.unsettled])
        for item in batch.unsettled:
            self._work(item)
            batch.settle(item)

    def fail(self, item: Number, error: FluxdropError) -> None:
        """See `Handler.fail`."""
        self.failed.append((item.number, error))

    def on_idle(self) -> None:
        """See `Handler.on_idle`."""
        self._on_idle()


class Together(Numbers):
    """Calls *work* with all items of a batch before any of them is settled."""

    def handle(self, batch: Batch[Number]) -> None:
        """See `Handler.handle`."""
        self.batches.append([item.number for item in batch.unsettled])
        for item in batch.unsettled:
            self._work(item)


class Once:
    """Raises each of *errors* once, one a call, and after that nothing."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)

    def __call__(self, *_arguments: object, **_options: object) -> None:
        """Raise the next one."""
        if self._errors:
            raise self._errors.pop(0)


def context_of(folder: Path, clock: Clock | None = None) -> Context:
    """The context of stages whose claimed jobs are in *folder*."""
    return Context(folder, Shutdown(), wait=(clock or Clock()).wait)


def run_stage(
    handler: Handler[T],
    folder: Path,
    *items: T,
    clock: Clock | None = None,
    context: Context | None = None,
) -> Stage[T]:
    """A stage that has handled *items*, which were handed to it together, and has ended."""
    stage = Stage(handler, context or context_of(folder, clock))
    stage.put_now(*items)
    stage.start()
    assert stage.finish(60), threading.enumerate()
    return stage
