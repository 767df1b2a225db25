"""All stages of one daemon, and how they are connected.

A prompt passes through generate, preprocess, predict and publish; a picture starts at preprocess.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fluxdrop.config import Settings, folder_of, table_of
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.generate.failures import cancelled
from fluxdrop.generate.hands import HostStatus
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
    OpenModel,
    PictureItem,
    PromptItem,
    ResultOptions,
    SwapModel,
    TensorItem,
    WarmUp,
)
from fluxdrop.service.mailbox import Claimed, Mailbox
from fluxdrop.service.reporting.heartbeat import Current, WarmModelStatus
from fluxdrop.service.shutdown import Shutdown
from fluxdrop.service.stages.generating import Generating
from fluxdrop.service.stages.make_hands import make_hands
from fluxdrop.service.stages.model_choice import ModelChoice
from fluxdrop.service.stages.model_opening import ModelOpener, Opening
from fluxdrop.service.stages.pending_jobs import PendingJobs
from fluxdrop.service.stages.predicting import Predicting
from fluxdrop.service.stages.preprocessing import Preprocessing
from fluxdrop.service.stages.publishing import Publishing
from fluxdrop.service.stages.stage import Context, Stage
from fluxdrop.service.stages.warm_models import WarmModels
from fluxdrop.service.supervision.liveness import report_progress

log = get_logger("fluxdrop.daemon")

_STOP_SECONDS = 15.0
_MARGIN_SECONDS = 60.0


class Stages:
    """The stages of one root, started and stopped together.

    Only the main loop's thread may use it, except for `fail`.
    """

    def __init__(
        self, root: Root, settings: Settings, store: Store, mailbox: Mailbox, shutdown: Shutdown
    ) -> None:
        """Create the stages; `start` starts their threads.

        Args:
            root: The root that the daemon serves.
            settings: The settings to begin with.
            store: The index.
            mailbox: Gets what the stages report to the main loop.
            shutdown: Ends the waits of the stages when begun.
        """
        self._root = root
        self.settings = settings
        """The settings in use."""
        self._store = store
        self._mailbox = mailbox
        self._shutdown = shutdown
        self._pending = PendingJobs()
        self._opener = ModelOpener(root, shutdown.check_after_grace)
        self.context = context = Context(root.work, shutdown)
        self._suspects = CrashSuspects(root, "predict")
        self._turns = threading.Lock()
        self._publishing = self._make_publishing(context)
        self._warm = WarmModels(
            settings,
            context,
            open_model=self._opener.on_demand,
            make_predicting=self._make_warm_predicting,
        )
        self._predicting = self._make_predicting(context)
        self._preprocessing = self._make_preprocessing(context)
        self._generating = self._make_generating(context)
        opening = Opening(self._opener, mailbox, self._preprocessing.put)
        self._opening = Stage[OpenModel](opening, context)
        self.all: tuple[Stage[Any], ...] = (
            self._generating,
            self._preprocessing,
            self._predicting,
            self._publishing,
            self._opening,
        )
        """Every stage, in the order of the work, and last the one that opens models."""

    def _make_publishing(self, context: Context) -> Stage[Finished]:
        self._publish = Publishing(
            Publisher(self._root, self._store, report_progress, self.settings.max_file_bytes),
            self._mailbox,
            context.deaths,
            fail=self._fail_to_publish,
            worker_pid=self._worker_pid,
        )
        return Stage(self._publish, context, limit=2 * Publishing.batch_size, uses_io_lock=True)

    def _make_predicting(self, context: Context) -> Stage[TensorItem | SwapModel]:
        batch = self.settings.batch_size
        self._predict = Predicting(
            batch,
            self._suspects,
            self._mailbox,
            context.defects,
            open_initial=self._open_initial,
            on_close=self._close_predicting,
            forward=self._publishing.put,
            fail=self.fail,
            result_options=self._result_options,
            turns=self._turns,
        )
        return Stage(self._predict, context, limit=2 * batch)

    def _make_warm_predicting(
        self, model: Model, open_model: Callable[[], Model], on_close: Callable[[], None]
    ) -> Predicting:
        return Predicting(
            self.settings.batch_size,
            self._suspects,
            self._mailbox,
            self.context.defects,
            open_initial=open_model,
            on_close=on_close,
            forward=self._publishing.put,
            fail=self.fail,
            result_options=self._result_options,
            turns=self._turns,
            name=f"predict {model.bundle.name}",
        )

    def _make_preprocessing(self, context: Context) -> Stage[PictureItem | SwapModel | WarmUp]:
        self._choice = ModelChoice(
            self.settings,
            self._warm,
            has_room=lambda: self._predicting.has_room,
            is_named=self._opener.is_named,
        )
        self._preprocess = Preprocessing(
            self.settings,
            self._store,
            self._pending,
            CrashSuspects(self._root, "preprocess"),
            self._choice,
            forward=self._forward_tensors,
            fail=self.fail,
        )
        stage = Stage(self._preprocess, context, limit=1024, uses_io_lock=True)
        self._warm.recheck = self._predicting.on_room = stage.recheck
        return stage

    def _make_generating(self, context: Context) -> Stage[PromptItem]:
        self._generate = Generating(
            self.settings,
            self._store,
            self._pending,
            make_hands=lambda settings: make_hands(settings, self._shutdown.check),
            forward=self._preprocessing.put,
            fail=self.fail,
            announce=self._announce_parts,
            check=self._shutdown.check,
        )
        # No limit: one file may become many jobs, and the admission bounds the number of files.
        return Stage(self._generate, context)

    @property
    def publisher(self) -> Publisher:
        """The publisher. The main loop may use it before it accepts the first job."""
        return self._publish.publisher

    @property
    def model(self) -> Model | None:
        """The model in use; None until it is loaded."""
        return self._predict.model

    @property
    def warm(self) -> list[WarmModelStatus]:
        """The models beside the one in use."""
        folders = self.settings.folders
        return self._warm.status(
            lambda name: [key for key, table in folders.items() if name in table.model_names]
        )

    @property
    def waiting(self) -> dict[str, int]:
        """How many jobs wait or are in hand, by stage; those of all models together as ``predict``."""
        counts = {stage.name: stage.waiting for stage in self.all}
        counts[self._predicting.name] += sum(stage.waiting for stage in self._warm.stages)
        return counts

    @property
    def currents(self) -> list[Current]:
        """The runs that generate pictures, in the order in which they began."""
        return self._generate.currents

    @property
    def hosts(self) -> list[HostStatus]:
        """The hosts of the cluster; none without one."""
        return self._generate.hosts

    @property
    def max_prompts(self) -> int:
        """How many prompts may be claimed and unfinished at a time."""
        return self._generate.max_prompts

    @property
    def reply_wait_seconds(self) -> float:
        """How long an engine has owed a reply; 0 if none owes one."""
        return max(self._predict.reply_wait_seconds, self._warm.reply_wait_seconds)

    @property
    def max_reply_seconds(self) -> float:
        """The longest time, with a margin, until a worker that owes a reply is replaced."""
        settings = self.settings
        return settings.worker_start_seconds + settings.worker_call_seconds + _MARGIN_SECONDS

    @property
    def generator_pid(self) -> int | None:
        """The process id of the generator, or of what speaks to the cluster, if it runs."""
        return self._generate.pid

    @property
    def outages(self) -> list[str]:
        """The outages of the stages and the engine, one sentence each."""
        parts = [*(stage.outage for stage in self._all), self._generate.outage]
        held = [str(part) for part in parts if part.ongoing]
        if not self._predicting.outage.ongoing and self.model and self.model.engine.outage:
            held.append(f"engine: {self.model.engine.outage}")
        return [*held, *self._warm.problems]

    def stuck(self, seconds: float) -> list[str]:
        """Return the names of the stages that have work and made no progress for *seconds*."""
        return [stage.name for stage in self._all if stage.stuck(seconds)]

    def start(self) -> None:
        """Start all stages and wait until the engine is warm.

        Raises:
            BaseException: The error that kept the engine from that.
        """
        for stage in self.all:
            stage.start()
        self._predicting.ready.wait()
        self.check()

    @property
    def _all(self) -> list[Stage[Any]]:
        """Every stage, also those of the models beside the one in use."""
        return [*self.all, *self._warm.stages]

    def warm_up(self, *, reopen_all: bool) -> None:
        """Open the models of the folders in the background, and those anew that changed; return at once.

        *reopen_all* has the others opened anew, too.
        """
        if self.settings.folders or self._warm.stages:
            self._preprocessing.put_now(WarmUp(reopen_all))

    def check(self) -> None:
        """Raise the error that ended a stage, if one ended by itself."""
        for stage in self._all:
            if stage.failure is not None:
                raise stage.failure

    def accept(self, job: Job) -> None:
        """Give a claimed job to its first stage; return at once."""
        job.inbox_folder = folder_of(self.settings.folders, job.source)
        if not job.fault:
            self._pending.add(job)
        if job.cancelled.exists():
            self._withdraw(job.id)
        if job.kind == "prompt" and not job.fault:
            self._generating.put_now(PromptItem(job))
        else:
            self._preprocessing.put_now(PictureItem(job))

    def cancel(self, job_id: str) -> None:
        """End an accepted job as cancelled.

        A prompt ends at once while it waits, and after its next step while it is generated. A
        picture ends in its turn. In a later stage, a job is done in spite of this.
        """
        with contextlib.suppress(FileNotFoundError):
            durable.write(self._root.work / job_id / CANCELLED, b"")
        self._withdraw(job_id)

    def _withdraw(self, job_id: str) -> None:
        job = self._pending.cancel(job_id)
        if job is None:
            self._generate.cancel(job_id)
        elif job.kind == "prompt":
            self.refuse(job, "generate", cancelled())

    def refuse(self, job: Job, stage: StageName, error: FluxdropError) -> None:
        """End a job that no stage has in hand as failed; return at once.

        Args:
            job: The job.
            stage: The stage at which it counts as failed.
            error: The reason.
        """
        self._publishing.put_now(self._failed(job, stage, error))

    def fail(self, job: Job, stage: StageName, error: FluxdropError) -> None:
        """End a job as failed, waiting for room in the queue. For the threads of the stages.

        Args:
            job: The job, which the calling stage has in hand.
            stage: The stage at which it failed.
            error: The reason.
        """
        self._publishing.put(self._failed(job, stage, error))

    def open_model(self, settings: Settings) -> None:
        """Open and warm up the model that *settings* name, beside the one in use, and then use it.

        Returns at once. The mailbox gets the outcome; do not call this again before.
        """
        self._opening.put_now(OpenModel(settings))

    def apply(self, settings: Settings) -> None:
        """Use *settings* from now on in everything but the model and the queues."""
        self.settings = settings
        self._preprocess.apply(settings)
        self.publisher.max_copied_bytes = settings.max_file_bytes
        self._generate.apply(settings)

    def stop(self) -> None:
        """Stop all stages. Jobs that are not done stay claimed, and the next start takes them up."""
        self._shutdown.begin()
        for stage in self.all:
            if not stage.finish(timeout=_STOP_SECONDS):
                log.warning("did not stop in time", stage=stage.name)

    def publish_planned(self, folders: Sequence[Path]) -> None:
        """Publish the jobs in *folders* by the names that an earlier run decided."""
        plans = [(folder, plan) for folder in folders if (plan := self.publisher.planned(folder))]
        self._publish.announce(self.publisher.perform(plans))

    def _failed(self, job: Job, stage: StageName, error: FluxdropError) -> Finished:
        job.sha256 = job.sha256 or input_sha256(job, self.settings.max_file_bytes)
        return outcome.failed(job, stage, error)

    def _fail_to_publish(self, job: Job, error: FluxdropError) -> None:
        # This runs on the publishing stage's own thread, which must not wait for room in its queue.
        self.refuse(job, "publish", error)

    def _announce_parts(self, job: Job, parts: list[NewJob]) -> None:
        # Index all of them before the first can end, for the commands that wait for them.
        row = claimed_row(job)
        self._store.claimed(row._replace(id=part.folder.name, inode=None) for part in parts)
        self._mailbox.post(Claimed(parts))

    def _open_initial(self) -> Model:
        model = self._choice.model = self._opener.open(self.settings)
        return model

    def _close_predicting(self) -> None:
        self._warm.finish()
        self._suspects.close()

    def _forward_tensors(self, *items: TensorItem | SwapModel) -> None:
        is_other = [isinstance(item, TensorItem) and self._warm.put(item) for item in items]
        rest = [item for item, is_taken in zip(items, is_other, strict=True) if not is_taken]
        if rest:
            self._predicting.put(*rest)

    def _result_options(self, job: Job) -> ResultOptions:
        settings, own = self.settings, table_of(self.settings.folders, job.inbox_folder)
        return ResultOptions(
            settings.result_labels if own.result_labels is None else own.result_labels,
            own.sort_by_label or settings.sort_by_label,
        )

    def _worker_pid(self, digest: str) -> int | None:
        model = self.model
        if model is not None and model.bundle.sha256 == digest:
            return model.engine.info.pid
        return self._warm.worker_pid(digest)
