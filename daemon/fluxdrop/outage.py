"""Outages: transient problems, such as a full disk or a share that is gone, that stop a part of the daemon."""

from __future__ import annotations

from collections.abc import Callable

from fluxdrop.errors import Outage
from fluxdrop.files import transient
from fluxdrop.logs import get_logger

log = get_logger("fluxdrop.daemon")


class OutageTracker:
    """The current outage of one *part* of the daemon, if there is one.

    An outage is logged once when it begins and once when it ends; ``status`` shows it meanwhile.
    One thread calls `begin`, `end` and `attempt`; any thread may read.
    """

    def __init__(self, part: str) -> None:
        self._part = part
        self._reason = ""
        self._where = ""

    @property
    def ongoing(self) -> bool:
        """Whether there is an outage now."""
        return bool(self._reason)

    def __str__(self) -> str:
        where = f" ({self._where})" if self._where else ""
        return f"{self._part}: {self._reason}{where}" if self.ongoing else ""

    def begin(self, reason: str, where: str = "") -> None:
        """Record that the part is held up, for the first time or still.

        Args:
            reason: Why. Another reason than the current one is logged as a new outage.
            where: The path that shows it; a change of it alone is not logged.
        """
        if reason != self._reason:
            log.error("outage begins", part=self._part, reason=reason, where=where)
        self._reason, self._where = reason, where

    def end(self) -> None:
        """Record that the outage is over; do nothing if there is none."""
        if self.ongoing:
            log.info("outage ended", part=self._part, reason=self._reason)
            self._reason = self._where = ""

    def attempt(
        self,
        work: Callable[[], object],
        is_transient: Callable[[BaseException], bool] = transient.is_transient,
    ) -> bool:
        """Call *work*; begin an outage if it fails with a transient error, else end the outage.

        Args:
            work: What to do. It must be safe to repeat.
            is_transient: Whether an OSError or Outage of *work* is transient.

        Returns:
            Whether *work* succeeded.

        Raises:
            OSError: *work* raised it, and it is not transient; so with Outage.
        """
        try:
            work()
        except (OSError, Outage) as error:
            if not is_transient(error):
                raise
            where = "" if isinstance(error, Outage) else str(error.filename or "")
            self.begin(transient.reason_of(error), where)
            return False
        self.end()
        return True
