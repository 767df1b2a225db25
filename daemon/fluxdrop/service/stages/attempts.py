"""The runs that are in hand, and what came of those that ended.

An outcome counts only if its run is in hand: whatever comes later of a run that was given up, as its host was lost,
is dropped. So a picture is written once, and is that of the current attempt.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from fluxdrop import failpoints
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.hands import Died, HostLost, Made, Outcome, Refused, Run, attempts_lost
from fluxdrop.generate.messages import GeneratedImage
from fluxdrop.generate.orders import GenerationOrder
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.jobs.job import Job
from fluxdrop.logs import get_logger
from fluxdrop.service.items import PromptItem
from fluxdrop.service.reporting.generation_progress import GenerationProgress
from fluxdrop.service.reporting.heartbeat import Current

log = get_logger("fluxdrop.generate")

_LOSSES_UNTIL_ALONE = 3
"""How many hosts may be lost over a job before it is made on a host by itself; if that is lost, too, it fails."""


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    """An item whose prompt file was read."""

    item: PromptItem
    parameters: PromptParameters

    @property
    def job(self) -> Job:
        """The job."""
        return self.item.job

    @property
    def order(self) -> GenerationOrder:
        """The picture that is wanted, with its seed."""
        parameters = self.parameters
        if self.wants_seed and self.job.seed is not None:
            parameters = parameters.with_seed(self.job.seed)
        return GenerationOrder(parameters, self.job.cancelled)

    @property
    def wants_seed(self) -> bool:
        """Whether the prompt leaves the seed open, so that it is the job's."""
        return self.parameters.seed is None


@dataclass(slots=True)
class _Attempt:
    """A run in hand."""

    jobs: list[Job]
    """The job of each order."""
    progress: GenerationProgress
    wanted: set[str]
    """The ids of those jobs that did not end meanwhile."""
    begun: float = field(default_factory=time.perf_counter)


class Attempts:
    """The runs in hand and, until they are used, the pictures and errors of those that ended.

    One thread owns it; any thread may read `currents`.
    """

    def __init__(self) -> None:
        self._runs: dict[str, _Attempt] = {}
        self._numbers = itertools.count(1)
        self._ended: dict[str, GeneratedImage | FluxdropError] = {}
        self._alone: set[str] = set()
        self._losses: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def currents(self) -> list[Current]:
        """The runs in hand, in the order in which they began."""
        return [attempt.progress.current for attempt in self._runs.copy().values()]

    def has(self, job: Job) -> bool:
        """Return whether *job* is in hand, or what came of it was not used."""
        return job.id in self._ended or any(
            job.id in attempt.wanted for attempt in self._runs.values()
        )

    def is_alone(self, job: Job) -> bool:
        """Return whether *job* has to have a run of its own, as one with others failed or was lost."""
        return job.id in self._alone

    def begin(self, prompts: Sequence[ReadPrompt]) -> Run:
        """Return a new run for *prompts*, which is in hand from now on."""
        jobs = [prompt.job for prompt in prompts]
        name = f"{jobs[0].id}.{next(self._numbers)}"
        self._runs[name] = _Attempt(jobs, GenerationProgress(jobs), {job.id for job in jobs})
        return Run(
            name,
            [prompt.order for prompt in prompts],
            [job.id for job in jobs],
            alone=self._losses[jobs[0].id] >= _LOSSES_UNTIL_ALONE,
            host_class=jobs[0].options.host_class or "",
        )

    def step(self, run: str, step: int, steps: int) -> None:
        """Record that *step* of *steps* of a run is done."""
        attempt = self._runs.get(run)
        if attempt is not None:
            attempt.progress.step(step, steps)

    def end(self, outcome: Outcome) -> list[Job]:
        """Record what came of a run, unless it is no longer in hand.

        Return the jobs whose next try is another attempt.
        """
        failpoints.reach("answer-received")
        attempt = self._runs.pop(outcome.run, None)
        if attempt is None:
            host = (outcome.host if isinstance(outcome, Made | HostLost) else None) or ""
            attempts_lost[host, "superseded"] += 1
            log.warning("an answer came too late", run=outcome.run, host=host)
            return []
        failpoints.reach("fence-passed")
        milliseconds = round((time.perf_counter() - attempt.begun) * 1000, 3)
        jobs = [job for job in attempt.jobs if job.id in attempt.wanted]
        for job in jobs:
            job.timings_ms["generate"] = milliseconds
        match outcome:
            case Made():
                for job, image in zip(attempt.jobs, outcome.images, strict=True):
                    if job.id in attempt.wanted:
                        self._ended[job.id] = _of_host(image, outcome)
                return []
            case HostLost():
                self._lose(jobs, outcome)
                return jobs
            case Refused() | Died():
                if len(attempt.jobs) > 1:
                    self._alone.update(job.id for job in jobs)
                else:
                    self._ended |= {job.id: outcome.error for job in jobs}
                return jobs if isinstance(outcome, Died) else []

    def take(self, job: Job) -> GeneratedImage | FluxdropError | None:
        """Return what came of *job*; None if it is in hand or was not begun. `has` is true until `forget`."""
        return self._ended.get(job.id)

    def repeat(self, job: Job) -> None:
        """Forget what came of *job*, which is made once more."""
        self._ended.pop(job.id, None)

    def forget(self, job: Job) -> None:
        """Forget *job*, which has ended."""
        self.repeat(job)
        self._alone.discard(job.id)
        self._losses.pop(job.id, None)
        for attempt in self._runs.values():
            attempt.wanted.discard(job.id)

    def cancelled_run(self, job_id: str) -> str | None:
        """Return the id of the run of a job if all jobs of that run are cancelled; None if it is in no such run."""
        for name, attempt in self._runs.items():
            if job_id in attempt.wanted:
                return name if all(job.cancelled.exists() for job in attempt.jobs) else None
        return None

    def give_up(self) -> list[Job]:
        """Forget the runs in hand, for which their hands have no outcome; return their jobs."""
        runs, self._runs = self._runs, {}
        return [job for run in runs.values() for job in run.jobs if job.id in run.wanted]

    def _lose(self, jobs: Sequence[Job], lost: HostLost) -> None:
        attempts_lost[lost.host, lost.reason] += 1
        for job in jobs:
            # If no host is named, that is no job's doing: the whole cluster is away, or the generator of this
            # machine died over several runs, one of which did it; alone it does it again.
            self._losses[job.id] += bool(lost.host)
            losses = self._losses[job.id]
            what = (
                "a host was lost over a job" if lost.host else "a run was lost, and is begun again"
            )
            of_host = {"host": lost.host, "losses": losses} if lost.host else {}
            log.warning(what, job=job.id, file=job.source, reason=lost.reason, **of_host)
            if losses > _LOSSES_UNTIL_ALONE:
                self._ended[job.id] = FluxdropError(
                    f"The host was lost each of the {losses} times that it was made, the last time alone on"
                    f" {lost.host}: {lost.reason}",
                    hint="fluxdrop status and the hosts' logs tell what became of them. Drop it once more to have it"
                    " tried again.",
                    kind="host",
                )
            elif losses == _LOSSES_UNTIL_ALONE:
                self._alone.add(job.id)


def _of_host(image: GeneratedImage, made: Made) -> GeneratedImage:
    """Return *image* with the host that made it, if it is one of a cluster."""
    if made.host is None:
        return image
    generated = image.generated
    generator = msgspec.structs.replace(
        generated.generator, host=made.host, host_class=made.host_class
    )
    return image._replace(generated=msgspec.structs.replace(generated, generator=generator))
