"""Stages with handlers of the tests' own, and a clock that waits for nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.job import Job
from fluxdrop.service.shutdown import Shutdown
from fluxdrop.service.stage import Batch, Context, Handler, Stage


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
    """Calls *work* with each item of a batch, settles it, and keeps what was given up with the reasons."""

    name = "numbers"

    def __init__(
        self,
        work: Callable[[Number], object],
        *,
        most: int = 1,
        tend: Callable[[], object] = lambda: None,
        tend_seconds: float | None = None,
    ) -> None:
        self.most = most
        self.tend_seconds = tend_seconds
        self.batches: list[list[int]] = []
        """The numbers that were open in each call of `handle`."""
        self.given_up: list[tuple[int, FluxdropError]] = []
        self._work = work
        self._tend = tend

    def handle(self, batch: Batch[Number]) -> None:
        """See `Handler.handle`."""
        self.batches.append([item.number for item in batch.open])
        for item in batch.open:
            self._work(item)
            batch.settle(item)

    def give_up(self, item: Number, error: FluxdropError) -> None:
        """See `Handler.give_up`."""
        self.given_up.append((item.number, error))

    def tend(self) -> None:
        """See `Handler.tend`."""
        self._tend()


def run_stage(
    handler: Handler[Number], folder: Path, *items: Number, clock: Clock | None = None
) -> Stage[Number]:
    """A stage that has handled *items*, which were handed to it together, and has ended."""
    context = Context(folder, Shutdown(), wait=(clock or Clock()).wait)
    stage = Stage(handler, context)
    stage.put_now(*items)
    stage.start()
    assert stage.finish(60), threading.enumerate()
    return stage
