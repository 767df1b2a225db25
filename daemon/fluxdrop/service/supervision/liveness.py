"""Liveness of the daemon's parts: when each last made progress."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

from fluxdrop.timestamps import rfc3339

STUCK_SECONDS = 120.0
"""A part that has work and made no progress for this long counts as stuck.

Work that may take longer has a deadline of its own and calls `report_progress` meanwhile.
"""

_current_thread = threading.local()


class Liveness:
    """The time at which one part of the daemon last made progress.

    One thread calls `touch`; any thread may read.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()

    def bind_thread(self) -> None:
        """Let `report_progress` touch this object when it is called on the current thread."""
        _current_thread.liveness = self

    def touch(self) -> None:
        """Record progress now."""
        self._last = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since the last progress."""
        return time.monotonic() - self._last

    @property
    def last(self) -> str:
        """The time of the last progress, RFC 3339."""
        return rfc3339(datetime.now(UTC) - timedelta(seconds=self.silence))


def report_progress() -> None:
    """Record progress of the part of the daemon whose thread this is.

    Also to be called while waiting for something that has a deadline, or because of an
    outage. Does nothing on a thread without a `Liveness`.
    """
    liveness = getattr(_current_thread, "liveness", None)
    if liveness is not None:
        liveness.touch()
