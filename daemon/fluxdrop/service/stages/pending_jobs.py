"""The admitted jobs that no stage has begun: each is either begun or cancelled, never both."""

from __future__ import annotations

import threading

from fluxdrop.jobs.job import Job


class PendingJobs:
    """The jobs that wait for their first stage. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[str, Job] = {}
        self._cancelled: set[str] = set()

    def add(self, job: Job) -> None:
        """Add a job that waits for its first stage."""
        with self._lock:
            self._pending[job.id] = job

    def begin(self, job: Job) -> bool:
        """Take *job* out; return whether its stage may begin it, which is so unless it was cancelled."""
        with self._lock:
            self._pending.pop(job.id, None)
            if job.id in self._cancelled:
                self._cancelled.remove(job.id)
                return False
            return True

    def cancel(self, job_id: str) -> Job | None:
        """Take a job out and return it, so that no stage begins it; return None if it no longer waits."""
        with self._lock:
            job = self._pending.pop(job_id, None)
            if job is not None:
                self._cancelled.add(job_id)
            return job
