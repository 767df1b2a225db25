"""Whether each part of the daemon still moves on."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

from fluxdrop.timestamps import rfc3339

STUCK_SECONDS = 120.0
"""How long a part with work in hand may not move on before it counts as stuck. Whatever rightly
takes longer has a deadline of its own, and moves on meanwhile (`report_progress`)."""

_current_thread = threading.local()


class Liveness:
    """When one part of the daemon last moved on. One thread beats; any may feel it."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def bind_thread(self) -> None:
        """Have `report_progress` in this thread beat this pulse."""
        _current_thread.pulse = self

    def beat(self) -> None:
        """It moved on just now."""
        self._last = time.monotonic()

    @property
    def silence(self) -> float:
        """For how many seconds it has not moved."""
        return time.monotonic() - self._last

    @property
    def last(self) -> str:
        """When it last moved on, RFC 3339."""
        return rfc3339(datetime.now(UTC) - timedelta(seconds=self.silence))


def report_progress() -> None:
    """The part of the daemon whose thread calls this moved on, or waits for what has a deadline or
    a known trouble."""
    pulse = getattr(_current_thread, "pulse", None)
    if pulse is not None:
        pulse.beat()
