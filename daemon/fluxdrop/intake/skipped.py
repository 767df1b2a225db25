"""The paths that the intake skips. Each is logged once, however often a scan finds it."""

from __future__ import annotations

from collections.abc import Iterator

from fluxdrop.logs import get_logger
from fluxdrop.printable import printable

log = get_logger("fluxdrop.intake")

_MAX_PATHS = 100
_MAX_SHOWN = 5


class Skipped:
    """Skipped paths with the reasons, up to a limit.

    A path is relative to the inbox, except for the inbox itself.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._previous: dict[str, str] = {}

    def begin_scan(self) -> None:
        """Forget the skipped paths; the scan that begins finds again what still has to be skipped."""
        self._previous, self._reasons = self._reasons, {}

    def add(self, path: str, reason: str, error: Exception | None = None) -> None:
        """Add a path, and log it unless the last scan skipped it for the same reason.

        Args:
            path: The path.
            reason: Why it is skipped.
            error: An exception whose traceback is logged.
        """
        path = printable(path)
        if len(self._reasons) >= _MAX_PATHS and path not in self._reasons:
            return
        if reason not in (self._reasons.get(path), self._previous.get(path)):
            log.warning("left alone", file=path, reason=reason, exc_info=error)
        self._reasons[path] = reason

    def reasons(self) -> dict[str, str]:
        """Return the paths that were skipped since the last scan began, with the reasons."""
        return dict(self._reasons)

    def summary(self, inbox: str) -> Iterator[str]:
        """Yield a line for each of the first paths, and one that counts the others.

        Leaves out *inbox*, the inbox's own path, which has an outage of its own.
        """
        skipped = [(path, reason) for path, reason in self._reasons.items() if path != inbox]
        for path, reason in skipped[:_MAX_SHOWN]:
            yield f"inbox: {path}: {reason}"
        if len(skipped) > _MAX_SHOWN:
            or_more = " or more" if len(self._reasons) == _MAX_PATHS else ""
            yield f"inbox: {len(skipped) - _MAX_SHOWN}{or_more} others"
