"""The stage that runs the model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from fluxdrop import faults
from fluxdrop.child import ChildDied
from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.danger import Danger
from fluxdrop.predict.classify import label_probabilities
from fluxdrop.predict.engine import EngineDown
from fluxdrop.publish import outcome
from fluxdrop.publish.publisher import Finished
from fluxdrop.service.deaths import Deaths
from fluxdrop.service.pulse import moved_on
from fluxdrop.service.stage import Stopping
from fluxdrop.service.work import Fail, Model, Prepared, Retire, Swap
from fluxdrop.trouble import Trouble

_DOWN_PAUSE_SECONDS = 1.0


class Predicting:
    """Hands on each picture's end: the whole batch at once, and singly where that fails."""

    def __init__(
        self,
        deaths: Deaths,
        danger: Danger,
        stop: threading.Event,
        *,
        hand_on: Callable[[list[Finished]], None],
        fail: Fail,
    ) -> None:
        self._deaths = deaths
        self._danger = danger
        self._stop = stop
        self._hand_on = hand_on
        self._fail = fail
        self.model: Model | None = None
        """The model in use."""
        self.trouble = Trouble("engine")
        """Why pictures wait for the engine, while they do."""
        self._asked_at: float | None = None

    @property
    def owed(self) -> float:
        """For how many seconds the engine has owed an answer; 0 when it owes none."""
        asked_at = self._asked_at
        return time.monotonic() - asked_at if asked_at is not None else 0.0

    def work(self, items: list[Prepared | Retire | Swap]) -> None:
        """Predict all of *items*, in order, and take out of them what is done."""
        while items:
            match items[0]:
                case Swap() as swap:
                    self._swap(swap)
                    del items[0]
                case Retire(model):
                    model.engine.close()
                    del items[0]
                case Prepared() as first:
                    batch = _alike(first, items)
                    self._predict(first.model, batch)
                    del items[: len(batch)]

    def tend(self) -> None:
        """See that the next picture finds an engine that works."""
        assert self.model is not None
        try:
            self.model.engine.tend()
        except FluxdropError as error:
            self.trouble.begin(error.message)
        else:
            self.trouble.end()

    def close(self) -> None:
        """End the engine, and let go of what the stage holds."""
        self._danger.close()
        if self.model is not None:
            self.model.engine.close()

    def _swap(self, swap: Swap) -> None:
        before, self.model = self.model, swap.model
        if before is not None and before is not swap.model:
            before.engine.close()
        faults.point("model-swapped")
        swap.done()

    def _predict(self, model: Model, items: list[Prepared]) -> None:
        started = time.perf_counter()
        # What a worker dies of, the daemon survives.
        jobs = [item.job for item in items] if model.engine.info.pid is None else []
        while True:
            try:
                with self._asking(), self._danger.over(jobs):
                    faults.point("prediction-begun")
                    raw = model.engine.predict(np.concatenate([item.tensor for item in items]))
                faults.point("prediction-ended")
            except EngineDown as error:
                self._wait_for_engine(error)
            except FluxdropError as error:
                if len(items) > 1:
                    return self._predict_singly(model, items)
                (item,) = items
                if not isinstance(error, ChildDied) or self._deaths.are_too_many(item.job, error):
                    return self._fail(item.job, "predict", error)
            else:
                break
            moved_on()
        self.trouble.end()
        milliseconds = (time.perf_counter() - started) * 1000 / len(items)
        finished = []
        for item, row in zip(items, raw, strict=True):
            item.job.timings_ms["predict"] = round(milliseconds, 3)
            finished += self._conclude(item, row)
        self._hand_on(finished)
        return None

    @contextmanager
    def _asking(self) -> Iterator[None]:
        self._asked_at = time.monotonic()
        try:
            yield
        finally:
            self._asked_at = None

    def _predict_singly(self, model: Model, items: list[Prepared]) -> None:
        for item in items:
            self._predict(model, [item])

    def _conclude(self, item: Prepared, row: NDArray[np.float32]) -> list[Finished]:
        bundle, engine = item.model.bundle, item.model.engine
        try:
            probabilities = label_probabilities(row, bundle)
        except FluxdropError as error:
            self._fail(item.job, "predict", error)
            return []
        return [outcome.done(item.job, item.picture, bundle, engine.info, probabilities)]

    def _wait_for_engine(self, error: EngineDown) -> None:
        self.trouble.begin(error.message)
        if self._stop.wait(_DOWN_PAUSE_SECONDS):
            raise Stopping


def _alike(first: Prepared, items: list[Prepared | Retire | Swap]) -> list[Prepared]:
    """The pictures at the head of *items* that are for the model of *first*."""
    batch: list[Prepared] = []
    for item in items:
        if not isinstance(item, Prepared) or item.model is not first.model:
            break
        batch.append(item)
    return batch
