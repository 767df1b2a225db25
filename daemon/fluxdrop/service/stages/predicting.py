"""The stage that runs the model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from fluxdrop import failpoints
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.jobs.crash_suspects import CrashSuspects
from fluxdrop.jobs.job import Job
from fluxdrop.predict.answer import answer_of
from fluxdrop.preprocess.tensor import npy
from fluxdrop.publish import outcome
from fluxdrop.publish.by_label import sort_by_label
from fluxdrop.publish.outcome import Finished
from fluxdrop.service.answer_set import Given
from fluxdrop.service.items import Fail, Model, ResultOptions, SwapModel, TensorItem
from fluxdrop.service.mailbox import Mailbox, ModelChanged, ModelRefused
from fluxdrop.service.stages.handler import IDLE_CHECK_SECONDS, Batch, Handler
from fluxdrop.service.supervision.defects import Defects

# A forward pass uses all processors: two at a time take longer than one after the other.
_TURN_SECONDS = 0.1


class Predicting(Handler[TensorItem | SwapModel]):
    """Predicts pictures; those that wait together for the same model are one forward pass."""

    idle_check_seconds = IDLE_CHECK_SECONDS

    def __init__(
        self,
        batch_size: int,
        suspects: CrashSuspects,
        mailbox: Mailbox,
        defects: Defects,
        *,
        open_initial: Callable[[], Model],
        on_close: Callable[[], None],
        forward: Callable[..., None],
        fail: Fail,
        result_options: Callable[[Job], ResultOptions] = lambda _job: ResultOptions(),
        turns: threading.Lock | None = None,
        name: str = "predict",
    ) -> None:
        """Set up the stage; no model is opened yet.

        Args:
            batch_size: How many pictures make a forward pass at most.
            suspects: Notes which jobs an engine inside the daemon works on.
            mailbox: Gets the changes of the model.
            defects: Counts the errors of engines that are closed.
            open_initial: Opens the model to begin with.
            on_close: Called at the end, after the engine was closed.
            forward: Hands finished jobs to the next stage.
            fail: Ends a job as failed.
            result_options: Returns what becomes of a job's result.
            turns: Held by the stage whose model computes, among those of several models.
            name: The stage's name.
        """
        self.name = name
        self._turns = turns or threading.Lock()
        self.batch_size = batch_size
        self._result_options = result_options
        self._suspects = suspects
        self._mailbox = mailbox
        self._defects = defects
        self._open_initial = open_initial
        self._on_close = on_close
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

    def handle(self, batch: Batch[TensorItem | SwapModel]) -> None:
        """See `Handler.handle`: items are handled in order, so a model is closed after its last picture."""
        while batch:
            match batch.unsettled[0]:
                case SwapModel() as swap:
                    self._swap(swap)
                    batch.settle(swap)
                case TensorItem() as first:
                    items = _same_model(first, batch.unsettled)
                    self._predict(first.model, items, batch)
                    batch.settle(*items)

    def fail(self, item: TensorItem | SwapModel, error: FluxdropError) -> None:
        """See `Handler.fail`."""
        if isinstance(item, SwapModel):
            self._mailbox.post(ModelRefused(error))
        elif item.answers is None:
            self._fail(item.job, "predict", error)
        elif given := item.answers.add(item.number, _naming(item.model, error)):
            self._fail(item.job, "predict", _first_error(given) or error)

    def on_idle(self) -> None:
        """Make sure that the engine works when the next picture comes.

        Raises:
            EngineDown: The engine does not work, and was not replaced.
        """
        assert self.model is not None
        self.model.engine.check_health()

    def close(self) -> None:
        """Close the engine."""
        try:
            if self.model is not None:
                self.model.engine.close()
        finally:
            self._on_close()

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
        batch: Batch[TensorItem | SwapModel],
    ) -> None:
        started = time.perf_counter()
        with self._engine_call():
            # Start the worker first: no job can be the cause if that fails.
            model.engine.prepare()
            # The daemon survives the death of a worker, but not of an engine in its own process.
            in_process = model.engine.info.pid is None
            with self._suspects.over([item.job for item in items] if in_process else []):
                failpoints.reach("prediction-begun")
                tensors = np.concatenate([item.tensor for item in items])
                with self._turn():
                    raw = model.engine.predict(tensors)
            failpoints.reach("prediction-ended")
        milliseconds = (time.perf_counter() - started) * 1000 / len(items)
        finished: list[Finished] = []
        failed: list[tuple[Job, FluxdropError]] = []
        for item, row in zip(items, raw, strict=True):
            with batch.guard(item):
                answer = answer_of(row, model.bundle)
                given = Given(model.bundle, model.engine.info, answer, milliseconds)
                answers = item.answers.add(item.number, given) if item.answers else (given,)
                if error := _first_error(answers):
                    failed.append((item.job, error))
                elif answers:
                    finished.append(self._finished(item, answers))
        # Nothing was handed on before, so the whole batch may be handled again until here.
        for job, error in failed:
            self._fail(job, "predict", error)
        if finished:
            self._forward(*finished)

    def _finished(self, item: TensorItem, answers: Sequence[Given | FluxdropError]) -> Finished:
        """Return the finished job of *item*, to which all its models gave *answers*.

        Embeddings are written to the job's folder, and so is each copy of the picture below by-label/.
        """
        job, options = item.job, self._result_options(item.job)
        first, *others = [one for one in answers if isinstance(one, Given)]
        job.timings_ms["predict"] = round(sum(one.milliseconds for one in [first, *others]), 3)
        for number, one in enumerate([first, *others]):
            if one.answer.embedding is not None:
                durable.put(job.embedding(number), npy(one.answer.embedding))
        finished = outcome.done(
            job,
            item.picture,
            first.bundle,
            first.engine,
            first.answer,
            options.max_labels,
            [(one.bundle, one.engine, one.answer) for one in others],
        )
        return sort_by_label(finished, item.picture.file, first.answer, options.sort_by_label)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until no other model computes, but not for long: it may hang, or wait for a process that starts."""
        has_turn = self._turns.acquire(timeout=_TURN_SECONDS)
        try:
            yield
        finally:
            if has_turn:
                self._turns.release()

    @contextmanager
    def _engine_call(self) -> Iterator[None]:
        self._called_at = time.monotonic()
        try:
            yield
        finally:
            self._called_at = None


def _naming(model: Model, error: FluxdropError) -> FluxdropError:
    """Return *error* with the name of the one of several models that it is about."""
    message = f"The model {model.bundle.name}: {error.message}"
    return FluxdropError(message, hint=error.hint, kind=error.kind)


def _first_error(answers: Sequence[Given | FluxdropError]) -> FluxdropError | None:
    return next((one for one in answers if isinstance(one, FluxdropError)), None)


def _same_model(first: TensorItem, items: Sequence[TensorItem | SwapModel]) -> list[TensorItem]:
    """Return the items at the head of *items* that are tensors for the model of *first*."""
    batch: list[TensorItem] = []
    for item in items:
        if not isinstance(item, TensorItem) or item.model is not first.model:
            break
        batch.append(item)
    return batch
