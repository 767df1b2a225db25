"""Unexpected exceptions: each is logged once with its traceback, and after that counted."""

from __future__ import annotations

import threading
import traceback
from collections import Counter

from fluxdrop.logs import get_logger

log = get_logger("fluxdrop.daemon")


class Defects:
    """Counts the defects of one daemon by the place where they occurred. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def record(self, part: str, error: BaseException, **facts: str) -> None:
        """Log and count an unexpected exception; call it where the exception is handled.

        Args:
            part: The part of the daemon whose work it ended.
            error: The exception.
            facts: What else the log line says, such as the job's id.
        """
        where = _where(part, error)
        with self._lock:
            self._counts[where] += 1
            times = self._counts[where]
        if times == 1:
            log.error("defect", where=where, reason=str(error), exc_info=error, **facts)
        else:
            log.error("defect again", where=where, reason=str(error), times=times, **facts)

    def counts(self) -> dict[str, int]:
        """Return how many times each defect has occurred."""
        with self._lock:
            return dict(self._counts)


def _where(part: str, error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "fluxdrop" in frame.filename] or frames
    place = f" in {ours[-1].name}" if ours else ""
    return f"{part}: {type(error).__name__}{place}"
