"""The stage that turns prompts into pictures."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fluxdrop import durable, faults
from fluxdrop.child import ChildDied
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.failures import cancelled
from fluxdrop.generate.generator import Generator, Order
from fluxdrop.generate.prompt_file import read_prompts
from fluxdrop.generate.request import Generated, GenerationRequest
from fluxdrop.jobs.job import Job
from fluxdrop.jobs.parts import divide
from fluxdrop.jobs.store import Store
from fluxdrop.service.deaths import Deaths
from fluxdrop.service.heartbeat import Current
from fluxdrop.service.progress import Meter
from fluxdrop.service.prompts import read_prompt
from fluxdrop.service.waiting import Waiting
from fluxdrop.service.work import Fail, Pictured


@dataclass(frozen=True, slots=True)
class _Asked:
    job: Job
    request: GenerationRequest


class Generating:
    """Hands on each prompt's picture, made at most once however often the daemon is restarted.

    *announce* is told the folders of the new jobs that a file with several pictures becomes.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        deaths: Deaths,
        waiting: Waiting,
        *,
        hand_on: Callable[[Pictured], None],
        fail: Fail,
        announce: Callable[[list[Path]], None],
        wait_hook: Callable[[], None],
    ) -> None:
        self._settings = self._wanted = settings
        self._wait_hook = wait_hook
        self._store = store
        self._deaths = deaths
        self._waiting = waiting
        self._hand_on = hand_on
        self._fail_job = fail
        self._announce = announce
        self.generator = Generator(settings, wait_hook=wait_hook)
        self._meter: Meter | None = None
        self._ended: set[str] = set()

    @property
    def current(self) -> Current | None:
        """The run of the pipeline that goes on."""
        return self._meter.current if self._meter else None

    def work(self, items: list[Job]) -> None:
        """Generate for each of *items*, in one run for those that can share it.

        It may be done again with the same items, until it comes to its end once.
        """
        if self._wanted is not self._settings:
            self.close()
            self._settings = self._wanted
            self.generator = Generator(self._settings, wait_hook=self._wait_hook)
        groups: dict[Hashable, list[_Asked]] = {}
        for job in items:
            if job.id in self._ended:
                continue
            if not self._waiting.begin(job):
                self._ended.add(job.id)
                continue
            try:
                asked = self._asked(job)
                if asked is not None:
                    groups.setdefault(self.generator.batch_key(asked.request), []).append(asked)
            except FluxdropError as error:
                self._fail(job, error)
        for group in groups.values():
            self._make(group)
        self._ended.clear()

    def apply(self, settings: Settings) -> None:
        """Use these settings from the next picture on, in a generator of their own."""
        self._wanted = settings

    def tend(self) -> None:
        """Look after the generator while no prompt comes; see `Generator.tend`."""
        self.generator.tend()

    def close(self) -> None:
        """End the generator; the next picture starts another."""
        self.generator.close()

    def _asked(self, job: Job) -> _Asked | None:
        """What *job* asks for; None where its picture is there already, which is handed on."""
        job.attempts = self._store.begin_attempt([job.id])[job.id]
        text = read_prompt(job.input, self._settings.max_prompt_bytes, job.name)
        job.prompt = text.strip()
        prompts = read_prompts(text)
        part = job.request.part
        if part is not None or (job.request.generation is None and len(prompts) > 1):
            self._announce(divide(job, [prompt.request for prompt in prompts]))
        if part is not None and part.number > len(prompts):
            raise FluxdropError(
                f"The file asks for {len(prompts)} pictures, so it has no picture {part.number}",
                kind="prompt",
            )
        prompt = prompts[part.number - 1 if part is not None else 0]
        job.warnings = list(prompt.warnings)
        request = job.request.generation or prompt.request
        if job.request.part is not None:
            job.prompt = request.prompt
        if job.generation.exists() and job.image.exists():
            self._finish(job, msgspec.json.decode(job.generation.read_bytes(), type=Generated))
            return None
        return _Asked(job, request)

    def _make(self, group: list[_Asked]) -> None:
        while group := self._not_cancelled(group):
            try:
                made = self._generate(group)
            except FluxdropError as error:
                if len(group) > 1:
                    # One of them may be at fault, or together they may be too much.
                    for asked in group:
                        self._make([asked])
                    return
                job = group[0].job
                if not isinstance(error, ChildDied) or self._deaths.are_too_many(job, error):
                    self._fail(job, error)
                    return
                job.attempts = self._store.begin_attempt([job.id])[job.id]
            else:
                for asked, generated in zip(group, made, strict=True):
                    self._finish(asked.job, generated)
                return

    def _not_cancelled(self, group: list[_Asked]) -> list[_Asked]:
        for asked in group:
            if asked.job.cancelled.exists():
                self._fail(asked.job, cancelled())
        return [asked for asked in group if asked.job.id not in self._ended]

    def _generate(self, group: list[_Asked]) -> list[Generated]:
        orders = [
            Order(asked.request, asked.job.folder / ".image.png.tmp", asked.job.cancelled)
            for asked in group
        ]
        self._meter = Meter([asked.job for asked in group])
        try:
            with ExitStack() as timers:
                for asked in group:
                    timers.enter_context(asked.job.timed("generate"))
                faults.point("generation-begun")
                made = self.generator.generate(orders, self._meter.step)
                faults.point("generation-whole")
        finally:
            self._meter = None
        for asked, order, generated in zip(group, orders, made, strict=True):
            order.target.replace(asked.job.image)
            durable.sync_folder(asked.job.folder)
            faults.point("generation-in-place")
            durable.write(asked.job.generation, msgspec.json.encode(generated))
            faults.point("generation-recorded")
        return made

    def _finish(self, job: Job, generated: Generated) -> None:
        if job.cancelled.exists():
            self._fail(job, cancelled())
            return
        job.warnings += generated.warnings
        self._hand_on(Pictured(job, generated))
        self._ended.add(job.id)

    def _fail(self, job: Job, error: FluxdropError) -> None:
        if error.kind == "prompt" and not error.hint:
            error.hint = "Correct the prompt file and drop it once more."
        self._fail_job(job, "generate", error)
        self._ended.add(job.id)
