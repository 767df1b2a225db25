"""The production line: generate, preprocess, predict, publish, each a stage that owns its part."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from fluxdrop import durable
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.failures import cancelled
from fluxdrop.jobs import job as jobs
from fluxdrop.jobs.danger import Danger
from fluxdrop.jobs.job import CANCELLED, Job, claimed_row
from fluxdrop.jobs.store import Store
from fluxdrop.layout import Root
from fluxdrop.logs import get_logger
from fluxdrop.passing import is_passing
from fluxdrop.predict.bundle import Bundle, load_bundle
from fluxdrop.predict.choose import open_engine
from fluxdrop.predict.engine import Engine
from fluxdrop.predict.on_demand import OnDemandEngine
from fluxdrop.publish import outcome
from fluxdrop.publish.publisher import Finished, Published, Publisher
from fluxdrop.publish.result import Record, Result
from fluxdrop.service.deaths import Deaths
from fluxdrop.service.generating import Generating
from fluxdrop.service.heartbeat import Current
from fluxdrop.service.predicting import Predicting
from fluxdrop.service.preprocessing import Preprocessing
from fluxdrop.service.pulse import moved_on
from fluxdrop.service.stage import TEND_SECONDS, Stage, Stopping
from fluxdrop.service.waiting import Waiting
from fluxdrop.service.work import Model, Pictured, Prepared, Retire, Swap

log = get_logger("fluxdrop.daemon")

_PUBLISH_MOST = 128
_STOP_GRACE_SECONDS = 5.0
_SPARE_SECONDS = 60.0

Answer = Callable[[FluxdropError | None], None]
"""Told how the change to another model went."""


class Line:
    """All stages of one root, started and stopped together.

    *on_end* is told the records of a batch, each with its path below the root, from the publishing
    thread; *on_job* the folder of a job that is to be accepted: one that has to be published again,
    or a new one.
    """

    def __init__(
        self,
        root: Root,
        settings: Settings,
        store: Store,
        *,
        on_end: Callable[[Sequence[tuple[Record, str]]], None],
        on_job: Callable[[Path], None],
    ) -> None:
        self._root = root
        self.settings = settings
        """Those in use."""
        self._store = store
        self._on_end = on_end
        self._on_job = on_job
        self._stop = threading.Event()
        self._stopped_at = 0.0
        self._deaths = Deaths()
        self._waiting = Waiting()
        self.publisher = Publisher(root, store)
        batch = settings.batch_size
        self._publishing = Stage[Finished](
            "publish",
            self._publish,
            most=_PUBLISH_MOST,
            limit=2 * _PUBLISH_MOST,
            stop=self._stop,
            passes=self._passes,
            takes_turns=True,
        )
        self._predict = Predicting(
            self._deaths,
            Danger(root, "predict"),
            self._stop,
            hand_on=self._publishing.put_all,
            fail=self.fail,
        )
        self._predicting = Stage[Prepared | Retire | Swap](
            "predict",
            self._predict.work,
            most=batch,
            limit=2 * batch,
            stop=self._stop,
            passes=self._passes,
            begin=self._open_first,
            end=self._close_engines,
            tend=self._predict.tend,
        )
        self._preprocess = Preprocessing(
            settings,
            store,
            self._waiting,
            Danger(root, "preprocess"),
            open_further=self._further,
            hand_on=self._predicting.put_all,
            fail=self.fail,
        )
        self._preprocessing = Stage[Pictured | Swap](
            "preprocess",
            self._preprocess.work,
            most=batch,
            limit=1024,
            stop=self._stop,
            passes=self._passes,
            end=self._preprocess.close,
            takes_turns=True,
        )
        self._generate = Generating(
            settings,
            store,
            self._deaths,
            self._waiting,
            hand_on=self._preprocessing.put,
            fail=self.fail,
            announce=self._announce_parts,
            wait_hook=self._stop_now,
        )
        self._generating = Stage[Job](
            "generate",
            self._generate.work,
            most=settings.generator_batch_size,
            # One file may become many jobs; the intake bounds how many files there are.
            limit=0,
            stop=self._stop,
            passes=self._passes,
            end=self._generate.close,
            tend=self._generate.tend,
            tend_seconds=min(TEND_SECONDS, settings.generator_idle_seconds),
        )
        # Workers end with the thread that started them, so this one lasts as long as they do.
        self._changing = Stage[tuple[Settings, Answer]](
            "model", self._change, most=1, limit=4, stop=self._stop, passes=self._passes
        )
        self.stages: tuple[Stage[Any], ...] = (
            self._generating,
            self._preprocessing,
            self._predicting,
            self._publishing,
            self._changing,
        )

    @property
    def model(self) -> Model | None:
        """The model in use; None before it was loaded."""
        return self._predict.model

    @property
    def current(self) -> Current | None:
        """The pictures being generated."""
        return self._generate.current

    @property
    def owed(self) -> float:
        """For how many seconds the engine has owed an answer; 0 when it owes none."""
        return self._predict.owed

    @property
    def longest_answer(self) -> float:
        """Seconds after which a worker that owes an answer was replaced, with room to spare."""
        settings = self.settings
        return settings.worker_start_seconds + settings.worker_call_seconds + _SPARE_SECONDS

    @property
    def generator_pid(self) -> int | None:
        """The process id of the generator, while there is one."""
        return self._generate.generator.pid

    @property
    def trouble(self) -> list[str]:
        """What holds up the stages, while it does."""
        held = [str(stage.trouble) for stage in self.stages if stage.trouble]
        if self._predict.trouble:
            held.append(str(self._predict.trouble))
        elif self.model and self.model.engine.trouble:
            held.append(f"engine: {self.model.engine.trouble}")
        return held

    def stuck(self, seconds: float) -> list[str]:
        """The stages that have work and did not move for *seconds*."""
        return [stage.name for stage in self.stages if stage.stuck(seconds)]

    def start(self) -> None:
        """Start all stages and wait until the engine is warm. Raises what kept it from that."""
        for stage in self.stages:
            stage.start()
        self._predicting.ready.wait()
        self.check()

    def check(self) -> None:
        """Raise what ended a stage, if one ended by itself."""
        for stage in self.stages:
            if stage.failure is not None:
                raise stage.failure

    def accept(self, job: Job) -> None:
        """Take in a claimed job."""
        if job.fault:
            self.fail(job, "intake", _fault(job))
        elif job.cancelled.exists():
            self.fail(job, _first_stage(job), cancelled())
        else:
            self._waiting.add(job)
            if job.kind == "prompt":
                self._generating.put(job)
            else:
                self._preprocessing.put(Pictured(job))

    def cancel(self, job_id: str) -> None:
        """End the accepted job *job_id* as failed: at once while it waits, after its next step while
        it is generated; later it is done anyhow."""
        folder = self._root.work / job_id
        with contextlib.suppress(FileNotFoundError):
            durable.write(folder / CANCELLED, b"")
        job = self._waiting.cancel(job_id)
        if job is not None:
            self.fail(job, _first_stage(job), cancelled())

    def fail(self, job: Job, stage: jobs.Stage, error: FluxdropError) -> None:
        """End *job* at *stage*, for a reason."""
        if stage in ("generate", "preprocess") and not self._root.work.is_dir():
            # No fault of the job's: its folder is away, and may be back.
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._root.work))
        self._publishing.put(outcome.failed(job, stage, error))

    def use(self, model: str, answer: Answer) -> None:
        """Change to another model: it is loaded and warmed beside the one in use, which stays until
        the other answers, and for good if that never happens."""
        self.change(msgspec.structs.replace(self.settings, model=model), answer)

    def change(self, settings: Settings, answer: Answer) -> None:
        """As `use`, with all that *settings* say of the model and its engine."""
        self._changing.put((settings, answer))

    def apply(self, settings: Settings) -> None:
        """Use *settings* from now on in all but the model and the queues."""
        self.settings = settings
        self._preprocess.apply(settings)
        self._generate.apply(settings)

    def hasten(self) -> None:
        """End what is being waited for: a generation at once, anything else after a grace."""
        if not self._stop.is_set():
            self._stopped_at = time.monotonic()
            self._stop.set()

    def stop(self) -> None:
        """End all stages. What is not finished stays claimed and is taken up by the next start."""
        self.hasten()
        for stage in self.stages:
            if not stage.finish(timeout=_STOP_GRACE_SECONDS + 10.0):
                log.warning("did not stop in time", stage=stage.name)

    def _stop_now(self) -> None:
        moved_on()
        if self._stop.is_set():
            raise Stopping

    def _stop_after_grace(self) -> None:
        moved_on()
        if self._stop.is_set() and time.monotonic() - self._stopped_at > _STOP_GRACE_SECONDS:
            raise Stopping

    def _passes(self, error: OSError) -> bool:
        return is_passing(error) or (error.errno == errno.ENOENT and not self._root.work.is_dir())

    def _announce_parts(self, folders: list[Path]) -> None:
        # The index knows of all of them before the first can end, for whoever waits for them.
        jobs_found = [job for folder in folders if (job := jobs.open_job(folder)) is not None]
        self._store.claimed([claimed_row(job) for job in jobs_found])
        for folder in folders:
            self._on_job(folder)

    def _open_first(self) -> None:
        model = self._open(self.settings)
        self._preprocess.model = self._predict.model = model

    def _open(self, settings: Settings) -> Model:
        bundle = load_bundle(settings.model, self._root.models)
        return Model(bundle, self._engine(settings, bundle))

    def _engine(self, settings: Settings, bundle: Bundle) -> Engine:
        return open_engine(
            settings, bundle, cache=self._root.graphs, wait_hook=self._stop_after_grace
        )

    def _further(self, name: str) -> Model:
        """The model *name* beside the one in use, for a job that asks for it."""
        bundle = load_bundle(name, self._root.models)
        return Model(bundle, OnDemandEngine(partial(self._engine, self.settings, bundle)))

    def _close_engines(self) -> None:
        self._predict.close()
        if self._preprocess.further is not None:
            self._preprocess.further[1].engine.close()

    def _change(self, items: list[tuple[Settings, Answer]]) -> None:
        for settings, answer in items:
            try:
                model = self._open(settings)
            except FluxdropError as error:
                answer(error)
                continue
            self._preprocessing.put(Swap(model, partial(self._changed, settings, answer)))

    def _changed(self, settings: Settings, answer: Answer) -> None:
        self.settings = settings
        answer(None)

    def _publish(self, items: list[Finished]) -> None:
        self.announce(self.publisher.publish(items))

    def announce(self, published: Published) -> None:
        """Log and pass on what was published."""
        for record, path in published.records:
            pid = self.model.engine.info.pid if self.model else None
            if isinstance(record, Result):
                log.info(
                    "done",
                    job=record.job_id,
                    file=record.source.file,
                    result=path,
                    label=record.top[0].label,
                    p=round(record.top[0].p, 4),
                    engine=record.model.engine,
                    backend=record.model.backend,
                    worker_pid=pid,
                )
            else:
                log.warning(
                    "failed",
                    job=record.job_id,
                    file=record.source.file,
                    result=path,
                    stage=record.error.stage,
                    reason=record.error.message,
                )
            self._deaths.forget(record.job_id)
        self._on_end(published.records)
        for folder in published.void:
            self._on_job(folder)


def _first_stage(job: Job) -> jobs.Stage:
    return "generate" if job.kind == "prompt" else "preprocess"


def _fault(job: Job) -> FluxdropError:
    if job.kind == "unknown":
        return FluxdropError(
            f"{job.name} is nothing that fluxdrop takes: {job.fault}",
            hint="Drop a .txt prompt, or a .png, .jpg, .jpeg or .webp picture.",
            kind="unknown",
        )
    return FluxdropError(
        f"{job.name} is not whole: {job.fault}",
        hint="Copy or save it again and drop it once more.",
        kind="incomplete",
    )
