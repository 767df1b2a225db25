"""The stage that generates pictures from prompts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence

import msgspec

from fluxdrop import failpoints
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.generate.failures import cancelled
from fluxdrop.generate.hands import Hands, HostStatus
from fluxdrop.generate.messages import GeneratedImage
from fluxdrop.generate.parameters import Generated, PromptParameters
from fluxdrop.jobs.claim import NewJob
from fluxdrop.jobs.job import Job
from fluxdrop.jobs.seeds import draw_seeds
from fluxdrop.jobs.store import Store
from fluxdrop.outage import OutageTracker
from fluxdrop.service.items import Fail, PictureItem, PromptItem
from fluxdrop.service.reporting.heartbeat import Current
from fluxdrop.service.shutdown import Stopping
from fluxdrop.service.stages.attempts import Attempts, ReadPrompt
from fluxdrop.service.stages.handler import IDLE_CHECK_SECONDS, Batch, Handler
from fluxdrop.service.stages.pending_jobs import PendingJobs
from fluxdrop.service.stages.prompt_reader import PromptReader
from fluxdrop.service.supervision.liveness import report_progress

HandsFactory = Callable[[Settings], Hands]
"""Makes hands for the given settings."""

_MIN_PROMPTS = 16
_PROMPTS_PER_SLOT = 3
"""So that whoever has made a picture finds another prompt, while jobs are also at the stages that follow."""
_CLUSTER_CHECK_SECONDS = 1.0
_WAIT_SECONDS = 0.25
"""How long to wait for an outcome before the next look at what was cancelled or has changed."""
_WAIT_SECONDS_WITH_ROOM = 0.05
"""The same while another prompt that is dropped could be begun at once."""


class Generating(Handler[PromptItem]):
    """Generates each prompt's picture, once, however often the daemon is restarted."""

    name = "generate"

    def __init__(
        self,
        settings: Settings,
        store: Store,
        pending: PendingJobs,
        *,
        make_hands: HandsFactory,
        forward: Callable[[PictureItem], None],
        fail: Fail,
        announce: Callable[[Job, list[NewJob]], None],
        check: Callable[[], None] = report_progress,
    ) -> None:
        """Set up the stage; no process is started yet.

        Args:
            settings: The settings to begin with.
            store: The index, which counts the attempts.
            pending: The jobs that no stage has begun.
            make_hands: Makes the hands, and others when their settings change.
            forward: Hands jobs with pictures to the next stage.
            fail: Ends a job as failed.
            announce: Called with the job of a file that asks for several pictures, and with the
                new jobs into which it was divided.
            check: Called while pictures are awaited. What it raises, such as Stopping, ends the wait.
        """
        self.batch_size = settings.generator_batch_size
        self._settings = self._next_settings = settings
        self._make_hands = make_hands
        self._store = store
        self._pending = pending
        self._forward = forward
        self._fail = fail
        self._check = check
        self._hands = make_hands(settings)
        self._reader = PromptReader(settings, announce)
        self._attempts = Attempts()
        self._cancelled: deque[str] = deque()
        """The ids of begun jobs that were cancelled, until the hands are told."""
        self.outage = OutageTracker("cluster")
        """The outage of the cluster, if its hosts cannot be reached: no picture can be begun then."""
        self._parameters: dict[str, PromptParameters] = {}
        """What the jobs in hand ask for, by job id: each file is read only once."""
        self._begun: set[str] = set()
        """The ids of the jobs in hand whose attempt was counted."""
        self._set_idle_check()

    @property
    def currents(self) -> list[Current]:
        """The runs of a pipeline in progress."""
        return self._attempts.currents

    @property
    def hosts(self) -> list[HostStatus]:
        """The hosts of the cluster; none without one."""
        return self._hands.hosts()

    @property
    def max_prompts(self) -> int:
        """How many prompts may be claimed and unfinished at a time."""
        return max(_MIN_PROMPTS, _PROMPTS_PER_SLOT * self._hands.slots)

    @property
    def pid(self) -> int | None:
        """The process id of the generator, or of what speaks to the cluster, if it runs."""
        return self._hands.pid

    def apply(self, settings: Settings) -> None:
        """Use *settings* from the next picture on. Any thread may call this."""
        self._next_settings = settings

    def cancel(self, job_id: str) -> None:
        """Have a picture in hand ended whose job is marked as cancelled. Any thread may call this."""
        self._cancelled.append(job_id)

    def handle(self, batch: Batch[PromptItem]) -> None:
        """See `Handler.handle`: as many runs are in hand as there is room for, and take turns with the queue.

        Prompts that can share a run of the pipeline do.
        """
        while batch:
            self._apply_settings()
            self._watch_outage()
            # First begin what can be begun, so that no host is idle while pictures are written.
            self._begin_runs(batch)
            if batch and not self._take_more(batch) and not self._settle_ended(batch):
                self._collect()
                self._cancel(batch)

    def fail(self, item: PromptItem, error: FluxdropError) -> None:
        """See `Handler.fail`."""
        if error.kind == "prompt" and not error.hint:
            error.hint = "Correct the prompt file and drop it once more."
        self._reader.announce_parts(item.job)
        self._forget(item.job)
        self._fail(item.job, "intake" if item.job.fault else "generate", error)

    def on_idle(self) -> None:
        """Check the hands, which release what was idle for long."""
        self._apply_settings()
        # Nothing is in hand that these could be about.
        self._cancelled.clear()
        self._hands.tend()
        self._watch_outage()

    def close(self) -> None:
        """Release the hands."""
        self._hands.close()

    def _take_more(self, batch: Batch[PromptItem]) -> bool:
        """Take more prompts from the queue if there is room beside those in hand; return whether there were some."""
        slots, room = self._hands.slots, self._hands.room
        if not (room and self._may_begin and (len(self._attempts) or slots > 1)):
            return False
        # While the disk is full, pictures that were made are in hand, too.
        left = 2 * slots * self.batch_size - len(batch)
        return left > 0 and bool(batch.take_more(min(room * self.batch_size, left)))

    @property
    def _may_begin(self) -> bool:
        """Whether runs may be begun: not if other hands are wanted, which have to wait for those in hand."""
        return self._settings is self._next_settings

    def _apply_settings(self) -> None:
        wanted = self._next_settings
        if _hands_settings(self._settings) != _hands_settings(wanted):
            if len(self._attempts) and not self._hands.outage:
                return
            # In an outage, what is in hand may wait for ever.
            self._give_up()
            self._hands.close()
            self._hands = self._make_hands(wanted)
        self._settings = self._reader.settings = wanted
        self._set_idle_check()

    def _set_idle_check(self) -> None:
        # What the hosts of a cluster are up to is shown also while no prompt comes.
        seconds = _CLUSTER_CHECK_SECONDS if self._settings.cluster else IDLE_CHECK_SECONDS
        self.idle_check_seconds = min(seconds, self._settings.generator_idle_seconds)

    def _watch_outage(self) -> None:
        if reason := self._hands.outage:
            self.outage.begin(reason)
        else:
            self.outage.end()

    def _settle_ended(self, batch: Batch[PromptItem]) -> bool:
        """Keep the pictures that were made, and end the jobs that cannot be done; return whether there were some.

        The pictures of one file are kept in their order, which gives them their names.
        """
        ended = []
        behind: set[str] = set()
        """The first jobs of files of which an earlier picture is still being made."""
        for item in batch.unsettled:
            part = item.job.options.part
            if part is not None and part.first in behind:
                continue
            if (outcome := self._attempts.take(item.job)) is not None:
                ended.append((item, outcome))
            elif part is not None:
                behind.add(part.first)
        for item, outcome in ended:
            match outcome:
                case FluxdropError() as error:
                    self._attempts.repeat(item.job)
                    batch.conclude(item, error)
                case image:
                    with batch.guard(item):
                        self._finish(item.job, self._write_image(item.job, image))
                        batch.settle(item)
        return bool(ended)

    def _begin_runs(self, batch: Batch[PromptItem]) -> None:
        """Begin runs for the items that are not in hand, as far as there is room."""
        if not (self._may_begin and self._hands.room):
            return
        groups: dict[Hashable, list[ReadPrompt]] = {}
        for item in batch.unsettled:
            if self._attempts.has(item.job):
                continue
            with batch.guard(item):
                prompt = self._read_item(item)
                if prompt is None:
                    batch.settle(item)
                elif item.job.cancelled.exists():
                    raise cancelled()
                else:
                    key = self._hands.batch_key(prompt.parameters)
                    own = item.job.id if self._attempts.is_alone(item.job) else None
                    groups.setdefault((key, own, item.job.options.host_class), []).append(prompt)
        _draw_missing_seeds([prompt for group in groups.values() for prompt in group])
        for prompts in self._divided(list(groups.values())):
            if not self._hands.room:
                break
            self._hands.begin(self._attempts.begin(prompts))
            failpoints.reach("dispatched")

    def _divided(self, groups: Sequence[Sequence[ReadPrompt]]) -> Iterator[Sequence[ReadPrompt]]:
        """Yield the prompts of each run: few enough that all the room is used, and at most `batch_size`."""
        share = -(-sum(map(len, groups)) // self._hands.room) if groups else 1
        size = min(self.batch_size, share)
        for group in groups:
            for first in range(0, len(group), size):
                yield group[first : first + size]

    def _collect(self) -> None:
        """Wait for runs to end, and record what came of them."""
        timeout = _WAIT_SECONDS_WITH_ROOM if self._hands.room else _WAIT_SECONDS
        try:
            outcomes = self._hands.finished(timeout, self._attempts.step)
        except Stopping:
            raise
        except BaseException:
            # What became of the runs is not known, so they are begun again.
            self._give_up()
            self._hands.close()
            raise
        if not outcomes:
            self._check()
        for outcome in outcomes:
            for job in self._attempts.end(outcome):
                # Count the next try as another attempt.
                self._release(job)

    def _give_up(self) -> None:
        """Forget the runs in hand, whose next try is another attempt."""
        for job in self._attempts.give_up():
            self._release(job)

    def _cancel(self, batch: Batch[PromptItem]) -> None:
        """End what was cancelled meanwhile: a run that nobody wants any more, or what waits for another try."""
        job_ids = {self._cancelled.popleft() for _ in range(len(self._cancelled))}
        for item in batch.unsettled:
            if item.job.id not in job_ids:
                continue
            if not self._attempts.has(item.job):
                batch.conclude(item, cancelled())
                continue
            if run := self._attempts.cancelled_run(item.job.id):
                self._hands.cancel(run)
            # If its host is lost now, it waits for another try.
            self._cancelled.append(item.job.id)

    def _read_item(self, item: PromptItem) -> ReadPrompt | None:
        """Return what *item* asks for; None if it was cancelled while it waited, or its picture exists."""
        job = item.job
        if job.id in self._parameters:
            return ReadPrompt(item, self._parameters[job.id])
        if not self._pending.begin(job):
            # The thread that cancelled it has ended it already.
            return None
        if job.id not in self._begun:
            job.attempts = self._store.begin_attempt([job.id])[job.id]
            self._begun.add(job.id)
        parameters = self._reader.read(job)
        if job.generation.exists() and job.image.exists():
            recorded = msgspec.json.decode(job.generation.read_bytes(), type=Generated)
            if recorded.source_sha256 in (None, job.sha256):
                self._finish(job, recorded)
                return None
        self._parameters[job.id] = parameters
        return ReadPrompt(item, parameters)

    def _write_image(self, job: Job, image: GeneratedImage) -> Generated:
        """Write *image* to the folder of *job*, durably, and return how it was generated.

        Raises:
            FluxdropError: The job was cancelled.
        """
        if job.cancelled.exists():
            raise cancelled()
        durable.write(job.image, image.png)
        failpoints.reach("generation-in-place")
        recorded = msgspec.structs.replace(image.generated, source_sha256=job.sha256)
        durable.write(job.generation, msgspec.json.encode(recorded))
        failpoints.reach("generation-recorded")
        return image.generated

    def _finish(self, job: Job, generated: Generated) -> None:
        self._forget(job)
        job.warnings += generated.warnings
        self._forward(PictureItem(job, generated))

    def _forget(self, job: Job) -> None:
        self._release(job)
        self._attempts.forget(job)

    def _release(self, job: Job) -> None:
        """Have the next try of *job* read its prompt again and count as another attempt."""
        self._parameters.pop(job.id, None)
        self._begun.discard(job.id)


def _draw_missing_seeds(prompts: Sequence[ReadPrompt]) -> None:
    """Draw the seeds of those *prompts* that have none; they are on the disk on return."""
    lacking = [prompt.job for prompt in prompts if prompt.wants_seed and prompt.job.seed is None]
    if lacking:
        for job, seed in zip(lacking, draw_seeds([job.folder for job in lacking]), strict=True):
            job.seed = seed
        failpoints.reach("generation-seeded")


def _hands_settings(settings: Settings) -> dict[str, object]:
    """Return those of the settings that hands are made for."""
    own = {
        key: getattr(settings, key)
        for key in Settings.__struct_fields__
        if key.startswith(("generator_", "pipeline", "lora", "cluster", "hosts"))
    }
    return own | {"folders": [table.pipeline for table in settings.folders.values()]}
