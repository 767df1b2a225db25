"""All stages of one daemon: generate, preprocess, predict, publish, and what passes between them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.generate.failures import cancelled
from fluxdrop.generate.generator import Generator
from fluxdrop.jobs.claim import NewJob
from fluxdrop.jobs.crash_suspects import CrashSuspects
from fluxdrop.jobs.job import CANCELLED, Job, claimed_row, input_sha256
from fluxdrop.jobs.job import StageName as StageName
from fluxdrop.jobs.store import Store
from fluxdrop.logs import get_logger
from fluxdrop.publish import outcome
from fluxdrop.publish.outcome import Finished
from fluxdrop.publish.publisher import Publisher
from fluxdrop.service.items import (
    Model,
    ModelWanted,
    Pictured,
    Prepared,
    Prompt,
    Retire,
    Swap,
)
from fluxdrop.service.mailbox import Claimed, Mailbox
from fluxdrop.service.reporting.heartbeat import Current
from fluxdrop.service.shutdown import Shutdown
from fluxdrop.service.stages.generating import Generating
from fluxdrop.service.stages.model_opening import Models, Opening
from fluxdrop.service.stages.predicting import Predicting
from fluxdrop.service.stages.preprocessing import Preprocessing
from fluxdrop.service.stages.publishing import Publishing
from fluxdrop.service.stages.stage import Context, Stage
from fluxdrop.service.stages.unbegun_jobs import UnbegunJobs
from fluxdrop.service.supervision.liveness import moved_on

log = get_logger("fluxdrop.daemon")

_STOP_SECONDS = 15.0
_SPARE_SECONDS = 60.0


class Stages:
    """All stages of one root, started and stopped together; what they have to tell goes to *mailbox*.

    The main loop owns it, and calls all of it but `fail`.
    """

    def __init__(
        self, root: Root, settings: Settings, store: Store, mailbox: Mailbox, shutdown: Shutdown
    ) -> None:
        self._root = root
        self.settings = settings
        """Those in use."""
        self._store = store
        self._mailbox = mailbox
        self._shutdown = shutdown
        self._waiting = UnbegunJobs()
        self._models = Models(root, shutdown.check_after_grace)
        self.context = context = Context(root.work, shutdown)
        self._publishing = self._make_publishing(context)
        self._predicting = self._make_predicting(context)
        self._preprocessing = self._make_preprocessing(context)
        self._generating = self._make_generating(context)
        opening = Opening(self._models, mailbox, self._preprocessing.put)
        self._opening = Stage[ModelWanted](opening, context)
        self.threads: tuple[Stage[Any], ...] = (
            self._generating,
            self._preprocessing,
            self._predicting,
            self._publishing,
            self._opening,
        )

    def _make_publishing(self, context: Context) -> Stage[Finished]:
        self._publish = Publishing(
            Publisher(self._root, self._store, moved_on, self.settings.max_file_bytes),
            self._mailbox,
            context.deaths,
            again=self._fail_to_publish,
            worker_pid=lambda: self.model.engine.info.pid if self.model else None,
        )
        return Stage(self._publish, context, limit=2 * Publishing.most, takes_turns=True)

    def _make_predicting(self, context: Context) -> Stage[Prepared | Retire | Swap]:
        batch = self.settings.batch_size
        self._predict = Predicting(
            batch,
            CrashSuspects(self._root, "predict"),
            self._mailbox,
            context.defects,
            open_first=self._open_first,
            close_further=self._close_further,
            hand_on=self._publishing.put,
            fail=self.fail,
        )
        return Stage(self._predict, context, limit=2 * batch)

    def _make_preprocessing(self, context: Context) -> Stage[Pictured | Swap]:
        self._preprocess = Preprocessing(
            self.settings,
            self._store,
            self._waiting,
            CrashSuspects(self._root, "preprocess"),
            open_further=lambda name: self._models.on_demand(name, self.settings),
            hand_on=self._predicting.put,
            fail=self.fail,
        )
        return Stage(self._preprocess, context, limit=1024, takes_turns=True)

    def _make_generating(self, context: Context) -> Stage[Prompt]:
        self._generate = Generating(
            self.settings,
            self._store,
            self._waiting,
            make_generator=lambda settings: Generator(settings, wait_hook=self._shutdown.check),
            hand_on=self._preprocessing.put,
            fail=self.fail,
            announce=self._announce_parts,
        )
        # One file may become many jobs; the intake bounds how many files there are.
        return Stage(self._generate, context)

    @property
    def publisher(self) -> Publisher:
        """What gives names; the main loop may use it before the first job is accepted."""
        return self._publish.publisher

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
        return self._generate.pid

    @property
    def trouble(self) -> list[str]:
        """What holds up the stages, while it does."""
        held = [str(stage.trouble) for stage in self.threads if stage.trouble]
        if not self._predicting.trouble and self.model and self.model.engine.trouble:
            held.append(f"engine: {self.model.engine.trouble}")
        return held

    def stuck(self, seconds: float) -> list[str]:
        """The stages that have work and did not move for *seconds*."""
        return [stage.name for stage in self.threads if stage.stuck(seconds)]

    def start(self) -> None:
        """Start all stages and wait until the engine is warm. Raises what kept it from that."""
        for stage in self.threads:
            stage.start()
        self._predicting.ready.wait()
        self.check()

    def check(self) -> None:
        """Raise what ended a stage, if one ended by itself."""
        for stage in self.threads:
            if stage.failure is not None:
                raise stage.failure

    def accept(self, job: Job) -> None:
        """Take in a claimed job. Never waits."""
        if not job.fault:
            self._waiting.add(job)
        if job.cancelled.exists():
            self._withdraw(job.id)
        if job.kind == "prompt" and not job.fault:
            self._generating.put_now(Prompt(job))
        else:
            self._preprocessing.put_now(Pictured(job))

    def cancel(self, job_id: str) -> None:
        """End the accepted job *job_id* as failed: a prompt at once while it waits, and after its next step
        while it is generated, a picture in its turn; later it is done anyhow."""
        with contextlib.suppress(FileNotFoundError):
            durable.write(self._root.work / job_id / CANCELLED, b"")
        self._withdraw(job_id)

    def _withdraw(self, job_id: str) -> None:
        job = self._waiting.cancel(job_id)
        if job is not None and job.kind == "prompt":
            self.refuse(job, "generate", cancelled())

    def refuse(self, job: Job, stage: StageName, error: FluxdropError) -> None:
        """End *job*, which no stage has in hand, at *stage* for a reason. Never waits."""
        self._publishing.put_now(self._failed(job, stage, error))

    def fail(self, job: Job, stage: StageName, error: FluxdropError) -> None:
        """End *job* at *stage*, for a reason. Called by the stages' threads."""
        self._publishing.put(self._failed(job, stage, error))

    def open_model(self, settings: Settings) -> None:
        """Have the model that *settings* name loaded and warmed beside the one in use, and then used. The
        mailbox is told how it went; until then no other may be asked for."""
        self._opening.put_now(ModelWanted(settings))

    def apply(self, settings: Settings) -> None:
        """Use *settings* from now on in all but the model and the queues."""
        self.settings = settings
        self._preprocess.apply(settings)
        self.publisher.max_copied_bytes = settings.max_file_bytes
        self._generate.apply(settings)

    def stop(self) -> None:
        """End all stages. What is not finished stays claimed and is taken up by the next start."""
        self._shutdown.begin()
        for stage in self.threads:
            if not stage.finish(timeout=_STOP_SECONDS):
                log.warning("did not stop in time", stage=stage.name)

    def publish_decided(self, folders: Sequence[Path]) -> None:
        """Give the jobs in *folders*, whose names an earlier run decided, these names."""
        plans = [(folder, plan) for folder in folders if (plan := self.publisher.planned(folder))]
        self._publish.announce(self.publisher.perform(plans))

    def _failed(self, job: Job, stage: StageName, error: FluxdropError) -> Finished:
        job.sha256 = job.sha256 or input_sha256(job, self.settings.max_file_bytes)
        return outcome.failed(job, stage, error)

    def _fail_to_publish(self, job: Job, error: FluxdropError) -> None:
        # On the publishing stage's own thread, which must not wait for room.
        self.refuse(job, "publish", error)

    def _announce_parts(self, job: Job, parts: list[NewJob]) -> None:
        # The index knows of all of them before the first can end, for whoever waits for them.
        row = claimed_row(job)
        self._store.claimed(row._replace(id=part.folder.name, inode=None) for part in parts)
        self._mailbox.post(Claimed(parts))

    def _open_first(self) -> Model:
        model = self._preprocess.model = self._models.open(self.settings)
        return model

    def _close_further(self) -> None:
        if self._preprocess.further is not None:
            self._preprocess.further[1].engine.close()
