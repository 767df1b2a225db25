"""The stage that turns prompts into pictures."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from fluxdrop import durable
from fluxdrop.child import ChildDied
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.generator import Generator
from fluxdrop.generate.infotext import parse_infotext
from fluxdrop.generate.request import Generated, GenerationRequest
from fluxdrop.jobs.job import Job
from fluxdrop.jobs.store import Store
from fluxdrop.service.deaths import Deaths
from fluxdrop.service.prompts import read_prompt
from fluxdrop.service.work import Fail, Pictured


class Generating:
    """Hands on each prompt's picture, made at most once however often the daemon is restarted."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        deaths: Deaths,
        *,
        hand_on: Callable[[Pictured], None],
        fail: Fail,
        wait_hook: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._deaths = deaths
        self._hand_on = hand_on
        self._fail = fail
        self.generator = Generator(settings, wait_hook=wait_hook)
        self.current: dict[str, str | int | None] | None = None
        """The picture in hand: job, file, steps done, all steps."""

    def work(self, items: list[Job]) -> None:
        """Generate for each of *items*."""
        for job in items:
            self._work(job)

    def _work(self, job: Job) -> None:
        while True:
            try:
                generated = self._generated(job)
            except ChildDied as error:
                if self._deaths.are_too_many(job, error):
                    return self._fail(job, "generate", error)
            except FluxdropError as error:
                return self._fail(job, "generate", error)
            else:
                job.warnings += generated.warnings
                return self._hand_on(Pictured(job, generated))

    def _generated(self, job: Job) -> Generated:
        job.attempts = self._store.begin_attempt([job.id])[job.id]
        request = self._request(job)
        if job.generation.exists() and job.image.exists():
            return msgspec.json.decode(job.generation.read_bytes(), type=Generated)
        unfinished = job.folder / ".image.png.tmp"
        self.current = {"job_id": job.id, "file": job.source, "step": 0, "steps": request.steps}
        try:
            with job.timed("generate"):
                generated = self.generator.generate(request, unfinished, self._on_step)
        finally:
            self.current = None
        unfinished.replace(job.image)
        durable.sync_folder(job.folder)
        durable.write(job.generation, msgspec.json.encode(generated))
        return generated

    def _request(self, job: Job) -> GenerationRequest:
        text = read_prompt(job.input, self._settings.max_prompt_bytes)
        job.prompt = text.strip()
        request, warnings = parse_infotext(text)
        job.warnings = warnings
        return job.request.generation or request

    def _on_step(self, step: int, steps: int) -> None:
        if self.current is not None:
            self.current = {**self.current, "step": step, "steps": steps}
