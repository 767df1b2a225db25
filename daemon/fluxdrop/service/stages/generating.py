"""The stage that generates pictures from prompts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import msgspec

from fluxdrop import failpoints
from fluxdrop.config import FolderTable, Settings, table_of
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.generate.bounds import check_bounds
from fluxdrop.generate.failures import cancelled
from fluxdrop.generate.folder_defaults import with_defaults
from fluxdrop.generate.generator import GenerationOrder, Generator
from fluxdrop.generate.messages import GeneratedImage
from fluxdrop.generate.parameters import Generated, PromptParameters
from fluxdrop.generate.prompt_file import MAX_PICTURES, PromptPicture, read_prompt, read_prompts
from fluxdrop.intake.writers import is_open_for_writing
from fluxdrop.jobs.claim import NewJob
from fluxdrop.jobs.job import Job, file_sha256
from fluxdrop.jobs.parts import divide
from fluxdrop.jobs.rewritten import is_written_by_others
from fluxdrop.jobs.store import Store
from fluxdrop.processes.child import ChildDied
from fluxdrop.service.items import Fail, PictureItem, PromptItem
from fluxdrop.service.reporting.generation_progress import GenerationProgress
from fluxdrop.service.reporting.heartbeat import Current
from fluxdrop.service.stages.pending_jobs import PendingJobs
from fluxdrop.service.stages.stage import IDLE_CHECK_SECONDS, Batch, Handler

GeneratorFactory = Callable[[Settings], Generator]
"""Makes a generator for the given settings."""


@dataclass(frozen=True, slots=True)
class _ReadPrompt:
    """An item whose prompt file was read."""

    item: PromptItem
    parameters: PromptParameters

    @property
    def job(self) -> Job:
        return self.item.job


class Generating(Handler[PromptItem]):
    """Generates each prompt's picture, once, however often the daemon is restarted."""

    name = "generate"

    def __init__(
        self,
        settings: Settings,
        store: Store,
        pending: PendingJobs,
        *,
        make_generator: GeneratorFactory,
        forward: Callable[[PictureItem], None],
        fail: Fail,
        announce: Callable[[Job, list[NewJob]], None],
    ) -> None:
        """Set up the stage; no process is started yet.

        Args:
            settings: The settings to begin with.
            store: The index, which counts the attempts.
            pending: The jobs that no stage has begun.
            make_generator: Makes the generator, and another one when its settings change.
            forward: Hands jobs with pictures to the next stage.
            fail: Ends a job as failed.
            announce: Called with the job of a file that asks for several pictures, and with the
                new jobs into which it was divided.
        """
        self.batch_size = settings.generator_batch_size
        self.idle_check_seconds = min(IDLE_CHECK_SECONDS, settings.generator_idle_seconds)
        self._settings = self._next_settings = settings
        self._make_generator = make_generator
        self._store = store
        self._pending = pending
        self._forward = forward
        self._fail = fail
        self._announce = announce
        self._generator = make_generator(settings)
        self._progress: GenerationProgress | None = None
        self._parameters: dict[str, PromptParameters] = {}
        """What the jobs in hand ask for, by job id: each file is read only once."""
        self._begun: set[str] = set()
        """The ids of the jobs in hand whose attempt was counted."""
        self._parts: dict[str, list[NewJob]] = {}
        """New jobs that were not announced yet, by the id of the job whose file they come from."""
        self._images: dict[str, GeneratedImage] = {}
        """Images that could not be written yet, as the disk is full, by job id."""

    @property
    def current(self) -> Current | None:
        """The run of the pipeline in progress, if any."""
        return self._progress.current if self._progress else None

    @property
    def pid(self) -> int | None:
        """The generator's process id, if it runs."""
        return self._generator.pid

    def apply(self, settings: Settings) -> None:
        """Use *settings* from the next picture on. Any thread may call this."""
        self._next_settings = settings

    def handle(self, batch: Batch[PromptItem]) -> None:
        """See `Handler.handle`: prompts that can share a run of the pipeline do."""
        self._apply_settings()
        groups: dict[Hashable, list[_ReadPrompt]] = {}
        for item in batch.unsettled:
            with batch.guard(item):
                prompt = self._read_item(item)
                if prompt is None:
                    batch.settle(item)
                else:
                    key = self._generator.batch_key(prompt.parameters)
                    groups.setdefault(key, []).append(prompt)
        for group in groups.values():
            self._generate(group)
            for prompt in group:
                with batch.guard(prompt.item):
                    self._finish(prompt.job, self._write_image(prompt.job))
                    batch.settle(prompt.item)

    def fail(self, item: PromptItem, error: FluxdropError) -> None:
        """See `Handler.fail`."""
        if error.kind == "prompt" and not error.hint:
            error.hint = "Correct the prompt file and drop it once more."
        self._announce_parts(item.job)
        self._forget(item.job)
        self._fail(item.job, "intake" if item.job.fault else "generate", error)

    def on_idle(self) -> None:
        """Check the generator, and stop it if it was idle for long."""
        self._generator.check_health()
        self._generator.stop_if_idle()

    def close(self) -> None:
        """Stop the generator."""
        self._generator.close()

    def _apply_settings(self) -> None:
        before, self._settings = self._settings, self._next_settings
        if _generator_settings(before) != _generator_settings(self._settings):
            self._generator.close()
            self._generator = self._make_generator(self._settings)

    def _read_item(self, item: PromptItem) -> _ReadPrompt | None:
        """Return what *item* asks for; None if it was cancelled while it waited, or its picture exists."""
        job = item.job
        if job.id in self._parameters:
            return _ReadPrompt(item, self._parameters[job.id])
        if not self._pending.begin(job):
            # The thread that cancelled it has ended it already.
            return None
        if job.id not in self._begun:
            job.attempts = self._store.begin_attempt([job.id])[job.id]
            self._begun.add(job.id)
        parameters = self._read_prompt(job)
        if job.generation.exists() and job.image.exists():
            recorded = msgspec.json.decode(job.generation.read_bytes(), type=Generated)
            if recorded.source_sha256 in (None, job.sha256):
                self._finish(job, recorded)
                return None
        self._parameters[job.id] = parameters
        return _ReadPrompt(item, parameters)

    def _read_prompt(self, job: Job) -> PromptParameters:
        """Return what a job's prompt file asks for.

        A file that asks for several pictures is divided into as many jobs first.
        """
        text = read_prompt(job.input, self._settings.max_prompt_bytes, job.name)
        job.sha256 = file_sha256(job.input, self._settings.max_prompt_bytes, job.name)
        job.prompt = text.strip()
        part = job.options.part
        replayed = job.options.generation
        is_whole_file = part is None and replayed is None
        max_pictures = self._settings.max_pictures_per_prompt if is_whole_file else MAX_PICTURES
        table = table_of(self._settings.folders, job.inbox_folder)
        prompts = [
            self._completed(prompt, table)
            for prompt in read_prompts(text, max_pictures, self._settings.max_steps, table.seed)
        ]
        for wanted in [replayed] if replayed else [prompt.parameters for prompt in prompts]:
            check_bounds(wanted, self._settings)
        if is_whole_file and len(prompts) > 1:
            pictures = [prompt.parameters for prompt in prompts]
            self._parts[job.id] = divide(job, pictures, self._settings.max_prompt_bytes)
            part = job.options.part
        self._announce_parts(job)
        if part is not None and part.number > len(prompts):
            raise FluxdropError(
                f"The file asks for {len(prompts)} pictures, so it has no picture {part.number}",
                kind="prompt",
            )
        prompt = prompts[part.number - 1 if part is not None else 0]
        job.warnings = list(prompt.warnings)
        if is_written_by_others(job) and is_open_for_writing(job.input):
            job.warnings.append("A program still had the file open for writing when it was read.")
        parameters = job.options.generation or prompt.parameters
        if part is not None:
            job.prompt = parameters.prompt
        return parameters

    def _completed(self, prompt: PromptPicture, table: FolderTable) -> PromptPicture:
        """Return *prompt* with what the table of its folder gives."""
        parameters, warnings = with_defaults(prompt.parameters, table, self._settings)
        return PromptPicture(parameters, [*prompt.warnings, *warnings])

    def _announce_parts(self, job: Job) -> None:
        if job.id in self._parts:
            self._announce(job, self._parts[job.id])
            del self._parts[job.id]

    def _generate(self, group: Sequence[_ReadPrompt]) -> None:
        """Generate those images of *group* that do not exist yet and were not cancelled."""
        group = [
            prompt
            for prompt in group
            if prompt.job.id not in self._images and not prompt.job.cancelled.exists()
        ]
        if not group:
            return
        orders = [GenerationOrder(prompt.parameters, prompt.job.cancelled) for prompt in group]
        self._progress = GenerationProgress([prompt.job for prompt in group])
        try:
            with ExitStack() as timers:
                for prompt in group:
                    timers.enter_context(prompt.job.timed("generate"))
                failpoints.reach("generation-begun")
                images = self._generator.generate(orders, self._progress.step)
                failpoints.reach("generation-whole")
        except ChildDied:
            for prompt in group:
                # Count the next try as another attempt.
                self._forget(prompt.job)
            raise
        finally:
            self._progress = None
        self._images |= {prompt.job.id: image for prompt, image in zip(group, images, strict=True)}

    def _write_image(self, job: Job) -> Generated:
        """Write the image of *job* to its folder, durably, and return how it was generated.

        Raises:
            FluxdropError: The job was cancelled.
        """
        if job.cancelled.exists():
            raise cancelled()
        image = self._images[job.id]
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
        self._parameters.pop(job.id, None)
        self._begun.discard(job.id)
        self._images.pop(job.id, None)


def _generator_settings(settings: Settings) -> dict[str, object]:
    """Return those of the settings that a generator is made for."""
    own = {
        key: getattr(settings, key)
        for key in Settings.__struct_fields__
        if key.startswith(("generator_", "pipeline", "lora"))
    }
    return own | {"folders": [table.pipeline for table in settings.folders.values()]}
