"""The stage that runs the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from fluxdrop import failpoints
from fluxdrop.config.settings import SortByLabel
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.jobs.crash_suspects import CrashSuspects
from fluxdrop.predict.answer import answer_of
from fluxdrop.preprocess.tensor import npy
from fluxdrop.publish import outcome
from fluxdrop.publish.by_label import sort_by_label
from fluxdrop.publish.outcome import Finished
from fluxdrop.service.items import Fail, Model, RetireModel, SwapModel, TensorItem
from fluxdrop.service.mailbox import Mailbox, ModelChanged, ModelRefused
from fluxdrop.service.stages.stage import IDLE_CHECK_SECONDS, Batch, Handler
from fluxdrop.service.supervision.defects import Defects


class Predicting(Handler[TensorItem | RetireModel | SwapModel]):
    """Predicts pictures; those that wait together for the same model are one forward pass."""

    name = "predict"
    idle_check_seconds = IDLE_CHECK_SECONDS

    def __init__(
        self,
        batch_size: int,
        suspects: CrashSuspects,
        mailbox: Mailbox,
        defects: Defects,
        *,
        open_initial: Callable[[], Model],
        close_secondary: Callable[[], None],
        forward: Callable[..., None],
        fail: Fail,
        result_labels: int = 0,
        sort_by_label: SortByLabel = "none",
    ) -> None:
        """Set up the stage; no model is opened yet.

        Args:
            batch_size: How many pictures make a forward pass at most.
            suspects: Notes which jobs an engine inside the daemon works on.
            mailbox: Gets the changes of the model.
            defects: Counts the errors of engines that are closed.
            open_initial: Opens the model to begin with.
            close_secondary: Closes the secondary model at the end.
            forward: Hands finished jobs to the next stage.
            fail: Ends a job as failed.
            result_labels: How many labels a result lists at most; 0 for all.
            sort_by_label: How pictures appear below outputs/by-label/, too.
        """
        self.batch_size = batch_size
        self.result_labels = result_labels
        self.sort_by_label = sort_by_label
        self._suspects = suspects
        self._mailbox = mailbox
        self._defects = defects
        self._open_initial = open_initial
        self._close_secondary = close_secondary
        self._forward = forward
        self._fail = fail
        self.model: Model | None = None
        """The model in use."""
        self._called_at: float | None = None

    @property
    def reply_wait_seconds(self) -> float:
        """How long the engine has owed a reply; 0 if it owes none."""
        called_at = self._called_at
        return time.monotonic() - called_at if called_at is not None else 0.0

    def open(self) -> None:
        """See `Handler.open`: the worker is started here, as it dies with the thread that started it."""
        self.model = self._open_initial()

    def handle(self, batch: Batch[TensorItem | RetireModel | SwapModel]) -> None:
        """See `Handler.handle`: items are handled in order, so a model is closed after its last picture."""
        while batch:
            match batch.unsettled[0]:
                case SwapModel() as swap:
                    self._swap(swap)
                    batch.settle(swap)
                case RetireModel(model) as retire:
                    self._end(model)
                    batch.settle(retire)
                case TensorItem() as first:
                    items = _same_model(first, batch.unsettled)
                    self._predict(first.model, items, batch)
                    batch.settle(*items)

    def fail(self, item: TensorItem | RetireModel | SwapModel, error: FluxdropError) -> None:
        """See `Handler.fail`."""
        if isinstance(item, TensorItem):
            self._fail(item.job, "predict", error)
        elif isinstance(item, SwapModel):
            self._mailbox.post(ModelRefused(error))

    def on_idle(self) -> None:
        """Make sure that the engine works when the next picture comes.

        Raises:
            EngineDown: The engine does not work, and was not replaced.
        """
        assert self.model is not None
        self.model.engine.check_health()

    def close(self) -> None:
        """Close the engines and the file of suspects."""
        self._suspects.close()
        if self.model is not None:
            self.model.engine.close()
        self._close_secondary()

    def _swap(self, swap: SwapModel) -> None:
        before, self.model = self.model, swap.model
        if before is not None and before is not swap.model:
            self._end(before)
        failpoints.reach("model-swapped")
        self._mailbox.post(ModelChanged(swap.model))

    def _end(self, model: Model) -> None:
        try:
            model.engine.close()
        except Exception as error:
            # Neither a picture nor the new model is at fault.
            self._defects.record(self.name, error, model=model.bundle.name)

    def _predict(
        self,
        model: Model,
        items: Sequence[TensorItem],
        batch: Batch[TensorItem | RetireModel | SwapModel],
    ) -> None:
        started = time.perf_counter()
        with self._engine_call():
            # Start the worker first: no job can be the cause if that fails.
            model.engine.prepare()
            # The daemon survives the death of a worker, but not of an engine in its own process.
            in_process = model.engine.info.pid is None
            with self._suspects.over([item.job for item in items] if in_process else []):
                failpoints.reach("prediction-begun")
                raw = model.engine.predict(np.concatenate([item.tensor for item in items]))
            failpoints.reach("prediction-ended")
        milliseconds = (time.perf_counter() - started) * 1000 / len(items)
        finished: list[Finished] = []
        for item, row in zip(items, raw, strict=True):
            item.job.timings_ms["predict"] = round(milliseconds, 3)
            with batch.guard(item):
                finished.append(_finished(item, row, self.result_labels, self.sort_by_label))
        self._forward(*finished)

    @contextmanager
    def _engine_call(self) -> Iterator[None]:
        self._called_at = time.monotonic()
        try:
            yield
        finally:
            self._called_at = None


def _finished(
    item: TensorItem, row: NDArray[np.float32], max_labels: int, sort: SortByLabel
) -> Finished:
    """Return the finished job of *item*, given the model's output *row* for it; its record lists *max_labels*.

    An embedding is written to the job's folder, and so is each copy of the picture that *sort* asks for.

    Raises:
        FluxdropError: The row is not what the model has to give.
    """
    bundle, engine = item.model.bundle, item.model.engine
    answer = answer_of(row, bundle)
    if answer.embedding is not None:
        durable.put(item.job.embedding, npy(answer.embedding))
    finished = outcome.done(item.job, item.picture, bundle, engine.info, answer, max_labels)
    return sort_by_label(finished, item.picture.file, answer, sort)


def _same_model(
    first: TensorItem, items: Sequence[TensorItem | RetireModel | SwapModel]
) -> list[TensorItem]:
    """Return the items at the head of *items* that are tensors for the model of *first*."""
    batch: list[TensorItem] = []
    for item in items:
        if not isinstance(item, TensorItem) or item.model is not first.model:
            break
        batch.append(item)
    return batch
