"""The stage that runs the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from fluxdrop import failpoints
from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.crash_suspects import CrashSuspects
from fluxdrop.predict.classify import label_probabilities
from fluxdrop.publish import outcome
from fluxdrop.publish.outcome import Finished
from fluxdrop.service.items import Fail, Model, Prepared, Retire, Swap
from fluxdrop.service.mailbox import Mailbox, ModelChanged, ModelRefused
from fluxdrop.service.stages.stage import TEND_SECONDS, Batch, Handler
from fluxdrop.service.supervision.defects import Defects


class Predicting(Handler[Prepared | Retire | Swap]):
    """Hands on each picture's end; pictures for the same model that wait together are one forward pass.

    *open_first* opens the model that is used from the start; *close_further* ends the one beside it.
    """

    name = "predict"
    tend_seconds = TEND_SECONDS

    def __init__(
        self,
        batch_size: int,
        danger: CrashSuspects,
        mailbox: Mailbox,
        defects: Defects,
        *,
        open_first: Callable[[], Model],
        close_further: Callable[[], None],
        hand_on: Callable[..., None],
        fail: Fail,
    ) -> None:
        self.most = batch_size
        self._danger = danger
        self._mailbox = mailbox
        self._defects = defects
        self._open_first = open_first
        self._close_further = close_further
        self._hand_on = hand_on
        self._fail = fail
        self.model: Model | None = None
        """The model in use."""
        self._asked_at: float | None = None

    @property
    def owed(self) -> float:
        """For how many seconds the engine has owed an answer; 0 when it owes none."""
        asked_at = self._asked_at
        return time.monotonic() - asked_at if asked_at is not None else 0.0

    def open(self) -> None:
        """See `Handler.open`: a worker ends with the thread that started it, which is this one."""
        self.model = self._open_first()

    def handle(self, batch: Batch[Prepared | Retire | Swap]) -> None:
        """See `Handler.handle`: all in their order, as a model ends behind the last of its pictures."""
        while batch:
            match batch.open[0]:
                case Swap() as swap:
                    self._swap(swap)
                    batch.settle(swap)
                case Retire(model) as retire:
                    self._end(model)
                    batch.settle(retire)
                case Prepared() as first:
                    items = _alike(first, batch.open)
                    self._predict(first.model, items, batch)
                    batch.settle(*items)

    def give_up(self, item: Prepared | Retire | Swap, error: FluxdropError) -> None:
        """See `Handler.give_up`."""
        if isinstance(item, Prepared):
            self._fail(item.job, "predict", error)
        elif isinstance(item, Swap):
            self._mailbox.post(ModelRefused(error))

    def tend(self) -> None:
        """See that the next picture finds an engine that works. Raises EngineDown."""
        assert self.model is not None
        self.model.engine.tend()

    def close(self) -> None:
        """End the engines, and let go of what the stage holds."""
        self._danger.close()
        if self.model is not None:
            self.model.engine.close()
        self._close_further()

    def _swap(self, swap: Swap) -> None:
        before, self.model = self.model, swap.model
        if before is not None and before is not swap.model:
            self._end(before)
        failpoints.reach("model-swapped")
        self._mailbox.post(ModelChanged(swap.model))

    def _end(self, model: Model) -> None:
        try:
            model.engine.close()
        except Exception as error:
            # No picture's fault, nor the new model's.
            self._defects.record(self.name, error, model=model.bundle.name)

    def _predict(
        self, model: Model, items: Sequence[Prepared], batch: Batch[Prepared | Retire | Swap]
    ) -> None:
        started = time.perf_counter()
        with self._asking():
            # Of a worker's start no job can be the cause.
            model.engine.prepare()
            # What a worker dies of, the daemon survives.
            in_process = model.engine.info.pid is None
            with self._danger.over([item.job for item in items] if in_process else []):
                failpoints.reach("prediction-begun")
                raw = model.engine.predict(np.concatenate([item.tensor for item in items]))
            failpoints.reach("prediction-ended")
        milliseconds = (time.perf_counter() - started) * 1000 / len(items)
        finished: list[Finished] = []
        for item, row in zip(items, raw, strict=True):
            item.job.timings_ms["predict"] = round(milliseconds, 3)
            with batch.guard(item):
                finished.append(_concluded(item, row))
        self._hand_on(*finished)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        self._asked_at = time.monotonic()
        try:
            yield
        finally:
            self._asked_at = None


def _concluded(item: Prepared, row: NDArray[np.float32]) -> Finished:
    """The end of the job of *item*, for which the model gave *row*. Raises FluxdropError for a wrong *row*."""
    bundle, engine = item.model.bundle, item.model.engine
    probabilities = label_probabilities(row, bundle)
    return outcome.done(item.job, item.picture, bundle, engine.info, probabilities)


def _alike(first: Prepared, items: Sequence[Prepared | Retire | Swap]) -> list[Prepared]:
    """The pictures at the head of *items* that are for the model of *first*."""
    batch: list[Prepared] = []
    for item in items:
        if not isinstance(item, Prepared) or item.model is not first.model:
            break
        batch.append(item)
    return batch
