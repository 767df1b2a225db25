"""How many child processes died over each job."""

from __future__ import annotations

import threading
from collections import Counter

from fluxdrop.jobs.crash_suspects import MAX_DEATHS
from fluxdrop.jobs.job import Job
from fluxdrop.logs import get_logger
from fluxdrop.processes.child import ChildDied

log = get_logger("fluxdrop.daemon")


class ProcessDeaths:
    """Counts the deaths over each job. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def record_death(self, job: Job, error: ChildDied) -> bool:
        """Count one more death over *job*; return whether the job has reached `MAX_DEATHS`.

        In that case *error* gets a hint, if it has none.
        """
        with self._lock:
            self._counts[job.id] += 1
            deaths = self._counts[job.id]
        log.warning("a process died over a job", job=job.id, file=job.source, deaths=deaths)
        if deaths < MAX_DEATHS:
            return False
        error.hint = error.hint or f"It was tried {deaths} times; see the log for what was printed."
        return True

    def forget(self, job_id: str) -> None:
        """Forget a job that has ended."""
        with self._lock:
            self._counts.pop(job_id, None)
