"""The end of the daemon, as its threads learn of it."""

from __future__ import annotations

import threading
import time

from fluxdrop.service.supervision.liveness import report_progress

_GRACE_SECONDS = 5.0


class Stopping(Exception):
    """The daemon stops; the work in hand is given back."""


class Shutdown:
    """Whether the daemon is to end. Any thread may begin it, ask and wait."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._begun_at = 0.0

    @property
    def begun(self) -> bool:
        """Whether the daemon is to end."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Have the daemon end; a second call does nothing."""
        if not self.begun:
            self._begun_at = time.monotonic()
            self._begun.set()

    def wait(self, seconds: float) -> bool:
        """Wait for *seconds*, or until the daemon is to end; return whether it is."""
        return self._begun.wait(seconds)

    def check(self) -> None:
        """Raise Stopping when the daemon is to end; for a wait that is broken off at once."""
        report_progress()
        if self.begun:
            raise Stopping

    def check_after_grace(self) -> None:
        """Raise Stopping some seconds after the end began; for a wait that mostly ends by itself."""
        report_progress()
        if self.begun and time.monotonic() - self._begun_at > _GRACE_SECONDS:
            raise Stopping
