"""What holds up a part of the daemon until it passes: a full disk, a share that is gone."""

from __future__ import annotations

from collections.abc import Callable

from fluxdrop.errors import Outage
from fluxdrop.files.transient import is_transient, reason_of
from fluxdrop.logs import get_logger

log = get_logger("fluxdrop.daemon")


class OutageTracker:
    """The trouble of one *part*: logged when it begins and when it ends, shown by ``status`` meanwhile.

    One thread begins and ends it; any may look.
    """

    def __init__(self, part: str) -> None:
        self._part = part
        self._reason = ""
        self._where = ""

    def __bool__(self) -> bool:
        return bool(self._reason)

    def __str__(self) -> str:
        where = f" ({self._where})" if self._where else ""
        return f"{self._part}: {self._reason}{where}" if self._reason else ""

    def begin(self, reason: str, where: str = "") -> None:
        """It is so, now or still, because of *reason*; *where* it shows may change meanwhile."""
        if reason != self._reason:
            log.error("trouble begins", part=self._part, reason=reason, where=where)
        self._reason, self._where = reason, where

    def end(self) -> None:
        """It is over, if it was."""
        if self._reason:
            log.info("trouble ended", part=self._part, reason=self._reason)
            self._reason = self._where = ""

    def attempt(
        self, work: Callable[[], object], passes: Callable[[BaseException], bool] = is_transient
    ) -> bool:
        """Do *work*, which must bear to be done again; False when an OSError or Outage that *passes* kept it
        from that.
        """
        try:
            work()
        except (OSError, Outage) as error:
            if not passes(error):
                raise
            where = "" if isinstance(error, Outage) else str(error.filename or "")
            self.begin(reason_of(error), where)
            return False
        self.end()
        return True
