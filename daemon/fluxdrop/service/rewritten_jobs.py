"""The jobs whose inputs were written to after they were taken: each is done again when its input has settled."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fluxdrop.config import Settings
from fluxdrop.files import durable
from fluxdrop.files.filesystem import filesystem_of, needs_polling, settle_seconds
from fluxdrop.files.folders import opened
from fluxdrop.intake.ready import Candidate, Gone, ReadinessPolicy, Ready, Wait
from fluxdrop.intake.writers import Writers
from fluxdrop.jobs.claim import FAULT, NewJob, read_claim
from fluxdrop.jobs.input_state import state_of


@dataclass(slots=True)
class _Unsettled:
    """A job that waits."""

    candidate: Candidate | None = None
    due: float = 0.0
    """When to look at the input again, by `time.monotonic`."""


class RewrittenJobs:
    """Follows the inputs in the folders of claimed jobs, as the intake follows files in the inbox.

    Whoever writes to one still has it open since it was in the inbox. One thread owns it.
    """

    def __init__(self, work: Path, settings: Callable[[], Settings]) -> None:
        """Begin with none.

        Args:
            work: The folder of the jobs' folders.
            settings: Returns the settings in use.
        """
        self._settings = settings
        self._filesystem = filesystem_of(work)
        self._writers = Writers()
        self._jobs: dict[Path, _Unsettled] = {}

    def add(self, folder: Path) -> None:
        """Follow the input of the job in *folder*."""
        self._jobs[folder] = _Unsettled()

    def clear(self) -> None:
        """Forget all jobs."""
        self._jobs.clear()

    def take_settled(self) -> list[NewJob]:
        """Return the jobs whose inputs nobody writes to any more, and forget them.

        If one stayed incomplete for too long, its folder says so, and the job will fail.

        Raises:
            OSError: The disk is full or not available.
        """
        self._writers.begin_turn()
        settled = []
        for folder, job in list(self._jobs.items()):
            now = time.monotonic()
            if now >= job.due:
                taken = self._judge(folder, job, now)
                if taken is not None:
                    del self._jobs[folder]
                    settled.append(taken)
        return settled

    def _judge(self, folder: Path, job: _Unsettled, now: float) -> NewJob | None:
        """Return the job in *folder* if its input has settled, or cannot be followed; otherwise set when it is due."""
        claim = read_claim(folder)
        if claim is None:
            return NewJob(folder)
        if job.candidate is None:
            job.candidate = Candidate(claim.input.name, kind_name=claim.source.name)
        with opened(folder) as fd:
            verdict = job.candidate.judge(fd, self._policy(), now, time.time())
        match verdict:
            case Wait(seconds):
                job.due = now + seconds
                return None
            case Ready(fault) if fault:
                durable.write(folder / FAULT, fault.encode())
            case Ready():
                state = state_of(claim.input)
                if state is not None and not job.candidate.unchanged(claim.input.lstat()):
                    return None
                return NewJob(folder, claim, state)
            case Gone():
                pass
        return NewJob(folder)

    def _policy(self) -> ReadinessPolicy:
        settings = self._settings()
        return ReadinessPolicy(
            settle_seconds(settings.settle_seconds, self._filesystem),
            settings.incomplete_seconds,
            trust_clock=not needs_polling(self._filesystem),
            max_bytes=settings.max_file_bytes,
            max_prompt_bytes=settings.max_prompt_bytes,
            is_open=self._writers.is_open,
            # Nobody can open it any more to write the rest, so the stage that decodes it decides.
            shows_all=lambda _fd: True,
        )
