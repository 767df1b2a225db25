"""Which claimed jobs no stage has begun yet: a job is either begun or cancelled, never both."""

from __future__ import annotations

import threading

from fluxdrop.jobs.job import Job


class PendingJobs:
    """The jobs that wait; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, Job] = {}
        self._cancelled: set[str] = set()

    def add(self, job: Job) -> None:
        """*job* waits for its first stage."""
        with self._lock:
            self._waiting[job.id] = job

    def begin(self, job: Job) -> bool:
        """Whether the stage that has *job* in hand may begin it; False when it was cancelled."""
        with self._lock:
            self._waiting.pop(job.id, None)
            if job.id in self._cancelled:
                self._cancelled.remove(job.id)
                return False
            return True

    def cancel(self, job_id: str) -> Job | None:
        """Take the job *job_id* out, if it still waits; its stage will not begin it."""
        with self._lock:
            job = self._waiting.pop(job_id, None)
            if job is not None:
                self._cancelled.add(job_id)
            return job
