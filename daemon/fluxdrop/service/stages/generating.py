"""The stage that turns prompts into pictures."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import msgspec

from fluxdrop import failpoints
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.generate.bounds import check_bounds
from fluxdrop.generate.failures import cancelled
from fluxdrop.generate.generator import GenerationOrder, Generator
from fluxdrop.generate.messages import GeneratedImage
from fluxdrop.generate.prompt_file import MOST_PICTURES, read_prompt, read_prompts
from fluxdrop.generate.request import Generated, GenerationRequest
from fluxdrop.jobs.claim import NewJob
from fluxdrop.jobs.job import Job, file_sha256
from fluxdrop.jobs.parts import divide
from fluxdrop.jobs.store import Store
from fluxdrop.processes.child import ChildDied
from fluxdrop.service.items import Fail, Pictured, Prompt
from fluxdrop.service.reporting.generation_progress import Meter
from fluxdrop.service.reporting.heartbeat import Current
from fluxdrop.service.stages.stage import TEND_SECONDS, Batch, Handler
from fluxdrop.service.stages.unbegun_jobs import UnbegunJobs

MakeGenerator = Callable[[Settings], Generator]


@dataclass(frozen=True, slots=True)
class _Asked:
    item: Prompt
    request: GenerationRequest

    @property
    def job(self) -> Job:
        return self.item.job


class Generating(Handler[Prompt]):
    """Hands on each prompt's picture, made at most once however often the daemon is restarted.

    *announce* is told the job of a file with several pictures, and the new jobs that the file becomes;
    *make_generator* makes what makes the pictures, anew when the settings change.
    """

    name = "generate"

    def __init__(
        self,
        settings: Settings,
        store: Store,
        waiting: UnbegunJobs,
        *,
        make_generator: MakeGenerator,
        hand_on: Callable[[Pictured], None],
        fail: Fail,
        announce: Callable[[Job, list[NewJob]], None],
    ) -> None:
        self.most = settings.generator_batch_size
        self.tend_seconds = min(TEND_SECONDS, settings.generator_idle_seconds)
        self._settings = self._wanted = settings
        self._make_generator = make_generator
        self._store = store
        self._waiting = waiting
        self._hand_on = hand_on
        self._fail = fail
        self._announce = announce
        self._generator = make_generator(settings)
        self._meter: Meter | None = None
        self._asked: dict[str, GenerationRequest] = {}
        """What the jobs in hand ask for, by their ids: it is read once."""
        self._begun: set[str] = set()
        """The ids of the jobs in hand whose attempt was counted."""
        self._parts: dict[str, list[NewJob]] = {}
        """The new jobs that were not announced yet, by the ids of those whose files they are of."""
        self._images: dict[str, GeneratedImage] = {}
        """Images that wait for room on the disk, by the ids of their jobs."""

    @property
    def current(self) -> Current | None:
        """The run of the pipeline that goes on."""
        return self._meter.current if self._meter else None

    @property
    def pid(self) -> int | None:
        """The process id of the generator, while there is one."""
        return self._generator.pid

    def apply(self, settings: Settings) -> None:
        """Use these settings from the next picture on; any thread may call it."""
        self._wanted = settings

    def handle(self, batch: Batch[Prompt]) -> None:
        """See `Handler.handle`: what can share a run of the pipeline is made in one."""
        self._take_settings()
        groups: dict[Hashable, list[_Asked]] = {}
        for item in batch.open:
            with batch.guard(item):
                asked = self._request(item)
                if asked is None:
                    batch.settle(item)
                else:
                    key = self._generator.batch_key(asked.request)
                    groups.setdefault(key, []).append(asked)
        for group in groups.values():
            self._generate(group)
            for asked in group:
                with batch.guard(asked.item):
                    self._finish(asked.job, self._write_image(asked.job))
                    batch.settle(asked.item)

    def give_up(self, item: Prompt, error: FluxdropError) -> None:
        """See `Handler.give_up`."""
        if error.kind == "prompt" and not error.hint:
            error.hint = "Correct the prompt file and drop it once more."
        self._announce_parts(item.job)
        self._forget(item.job)
        self._fail(item.job, "intake" if item.job.fault else "generate", error)

    def tend(self) -> None:
        """Look after the generator while no prompt comes; see `Generator.tend`."""
        self._generator.tend()

    def close(self) -> None:
        """End the generator."""
        self._generator.close()

    def _take_settings(self) -> None:
        before, self._settings = self._settings, self._wanted
        if _of_generator(before) != _of_generator(self._settings):
            self._generator.close()
            self._generator = self._make_generator(self._settings)

    def _request(self, item: Prompt) -> _Asked | None:
        """What *item* asks for; None where it was cancelled while it waited, or its picture is there."""
        job = item.job
        if job.id in self._asked:
            return _Asked(item, self._asked[job.id])
        if not self._waiting.begin(job):
            # Whoever cancelled it has ended it already.
            return None
        if job.id not in self._begun:
            job.attempts = self._store.begin_attempt([job.id])[job.id]
            self._begun.add(job.id)
        request = self._read(job)
        if job.generation.exists() and job.image.exists():
            recorded = msgspec.json.decode(job.generation.read_bytes(), type=Generated)
            self._finish(job, recorded)
            return None
        self._asked[job.id] = request
        return _Asked(item, request)

    def _read(self, job: Job) -> GenerationRequest:
        """What the prompt file of *job* asks for, after it was divided, if it asks for several pictures."""
        text = read_prompt(job.input, self._settings.max_prompt_bytes, job.name)
        job.sha256 = file_sha256(job.input, self._settings.max_prompt_bytes, job.name)
        job.prompt = text.strip()
        part = job.request.part
        asked = job.request.generation
        is_whole_file = part is None and asked is None
        most = self._settings.max_pictures_per_prompt if is_whole_file else MOST_PICTURES
        prompts = read_prompts(text, most)
        for wanted in [asked] if asked else [prompt.request for prompt in prompts]:
            check_bounds(wanted, self._settings)
        if is_whole_file and len(prompts) > 1:
            requests = [prompt.request for prompt in prompts]
            self._parts[job.id] = divide(job, requests, self._settings.max_prompt_bytes)
            part = job.request.part
        self._announce_parts(job)
        if part is not None and part.number > len(prompts):
            raise FluxdropError(
                f"The file asks for {len(prompts)} pictures, so it has no picture {part.number}",
                kind="prompt",
            )
        prompt = prompts[part.number - 1 if part is not None else 0]
        job.warnings = list(prompt.warnings)
        request = job.request.generation or prompt.request
        if part is not None:
            job.prompt = request.prompt
        return request

    def _announce_parts(self, job: Job) -> None:
        if job.id in self._parts:
            self._announce(job, self._parts[job.id])
            del self._parts[job.id]

    def _generate(self, group: Sequence[_Asked]) -> None:
        """Generate the images of *group* that are not there yet and are still wanted."""
        group = [
            asked
            for asked in group
            if asked.job.id not in self._images and not asked.job.cancelled.exists()
        ]
        if not group:
            return
        orders = [GenerationOrder(asked.request, asked.job.cancelled) for asked in group]
        self._meter = Meter([asked.job for asked in group])
        try:
            with ExitStack() as timers:
                for asked in group:
                    timers.enter_context(asked.job.timed("generate"))
                failpoints.reach("generation-begun")
                images = self._generator.generate(orders, self._meter.step)
                failpoints.reach("generation-whole")
        except ChildDied:
            for asked in group:
                # The next try is another attempt.
                self._forget(asked.job)
            raise
        finally:
            self._meter = None
        self._images |= {asked.job.id: image for asked, image in zip(group, images, strict=True)}

    def _write_image(self, job: Job) -> Generated:
        """Write the image of *job* to its folder, durably; return how it was generated.

        Raises FluxdropError when the job was cancelled.
        """
        if job.cancelled.exists():
            raise cancelled()
        image = self._images[job.id]
        durable.write(job.image, image.png)
        failpoints.reach("generation-in-place")
        durable.write(job.generation, msgspec.json.encode(image.generated))
        failpoints.reach("generation-recorded")
        return image.generated

    def _finish(self, job: Job, generated: Generated) -> None:
        self._forget(job)
        job.warnings += generated.warnings
        self._hand_on(Pictured(job, generated))

    def _forget(self, job: Job) -> None:
        self._asked.pop(job.id, None)
        self._begun.discard(job.id)
        self._images.pop(job.id, None)


def _of_generator(settings: Settings) -> dict[str, object]:
    """What of *settings* the generator is made for."""
    return {
        key: getattr(settings, key)
        for key in Settings.__struct_fields__
        if key.startswith(("generator_", "pipeline", "lora"))
    }
