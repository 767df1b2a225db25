"""Exceptions that nobody foresaw: each is logged with its traceback once, and counted after that."""

from __future__ import annotations

import threading
import traceback
from collections import Counter

from fluxdrop.logs import get_logger

log = get_logger("fluxdrop.daemon")


class Defects:
    """Counts the defects of one daemon by where they showed. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def record(self, part: str, error: BaseException, **facts: str) -> None:
        """*error* ended work of *part*, of which *facts* tell more. Called where it is handled."""
        where = _where(part, error)
        with self._lock:
            self._counts[where] += 1
            times = self._counts[where]
        if times == 1:
            log.error("defect", where=where, reason=str(error), exc_info=error, **facts)
        else:
            log.error("defect again", where=where, reason=str(error), times=times, **facts)

    def counts(self) -> dict[str, int]:
        """How many times each defect has shown."""
        with self._lock:
            return dict(self._counts)


def _where(part: str, error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "fluxdrop" in frame.filename] or frames
    place = f" in {ours[-1].name}" if ours else ""
    return f"{part}: {type(error).__name__}{place}"
