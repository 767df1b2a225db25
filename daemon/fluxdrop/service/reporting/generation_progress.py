"""Progress of a generation, for `status`, for commands that wait, and now and then for the log."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from fluxdrop.jobs.job import Job
from fluxdrop.logs import get_logger
from fluxdrop.service.reporting.heartbeat import Current

log = get_logger("fluxdrop.generate")

_LOG_SECONDS = 5.0


class GenerationProgress:
    """Follows one run of the pipeline for *jobs*, which make one batch."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.current = Current(job_id=jobs[0].id, file=jobs[0].source, pictures=len(jobs))
        self._first: tuple[int, float] | None = None
        self._logged = time.monotonic()

    def step(self, step: int, steps: int) -> None:
        """Record that *step* of *steps* is done."""
        now = time.monotonic()
        if self._first is None or step <= self._first[0]:
            self._first = step, now
        done, taken = step - self._first[0], now - self._first[1]
        rate = done / taken if done and taken else None
        self.current = msgspec.structs.replace(
            self.current,
            step=step,
            steps=steps,
            steps_per_second=round(rate, 3) if rate else None,
            seconds_left=round((steps - step) / rate, 1) if rate else None,
        )
        if now - self._logged >= _LOG_SECONDS:
            self._logged = now
            log.info("generating", **msgspec.structs.asdict(self.current))
