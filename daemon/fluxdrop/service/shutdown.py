"""How the daemon's threads learn that it stops."""

from __future__ import annotations

import threading
import time

from fluxdrop.service.supervision.liveness import report_progress

_GRACE_SECONDS = 5.0


class Stopping(Exception):
    """Raised where the daemon stops: the work in hand stays claimed."""


class Shutdown:
    """A flag that the daemon is to stop. Any thread may set it, read it and wait for it."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._begun_at = 0.0

    @property
    def begun(self) -> bool:
        """Return whether the daemon is to stop."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Make the daemon stop; a second call does nothing."""
        if not self.begun:
            self._begun_at = time.monotonic()
            self._begun.set()

    def wait(self, seconds: float) -> bool:
        """Wait for *seconds* or until the daemon is to stop; return whether it is."""
        return self._begun.wait(seconds)

    def check(self) -> None:
        """Raise Stopping if the daemon is to stop. Call it in a wait that may be cut off at any time."""
        report_progress()
        if self.begun:
            raise Stopping

    def check_after_grace(self) -> None:
        """Raise Stopping if the daemon was told to stop more than five seconds ago.

        Call it in a wait that usually ends soon by itself.
        """
        report_progress()
        if self.begun and time.monotonic() - self._begun_at > _GRACE_SECONDS:
            raise Stopping
