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

    A path is relative to the inbox, except for the inbox itself. Irregular files, such as symlinks, are kept
    apart: they hold nothing up, and however many there are, the others are known.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._irregular: dict[str, str] = {}
        self._previous: dict[str, str] = {}

    def begin_scan(self) -> None:
        """Forget the skipped paths; the scan that begins finds again what still has to be skipped."""
        self._previous = self.reasons()
        self._reasons, self._irregular = {}, {}

    def add(
        self, path: str, reason: str, error: Exception | None = None, *, irregular: bool = False
    ) -> None:
        """Add a path, and log it unless the last scan skipped it for the same reason.

        Args:
            path: The path.
            reason: Why it is skipped.
            error: An exception whose traceback is logged.
            irregular: Whether it is neither a file nor a folder.
        """
        path = printable(path)
        reasons = self._irregular if irregular else self._reasons
        if len(reasons) >= _MAX_PATHS and path not in reasons:
            return
        if reason not in (reasons.get(path), self._previous.get(path)):
            log.warning("left alone", file=path, reason=reason, exc_info=error)
        reasons[path] = reason

    def reasons(self) -> dict[str, str]:
        """Return the paths that were skipped since the last scan began, with the reasons."""
        return self._reasons | self._irregular

    def summary(self, inbox: str) -> Iterator[str]:
        """Yield a line for each of the first regular files and folders, and one that counts the others.

        Leaves out *inbox*, the inbox's own path, which has an outage of its own.
        """
        yield from _lines({path: why for path, why in self._reasons.items() if path != inbox})

    def irregular_summary(self) -> Iterator[str]:
        """Yield a line for each of the first irregular files, and one that counts the others."""
        yield from _lines(self._irregular)


def _lines(reasons: dict[str, str]) -> Iterator[str]:
    for path, reason in list(reasons.items())[:_MAX_SHOWN]:
        yield f"inbox: {path}: {reason}"
    if len(reasons) > _MAX_SHOWN:
        or_more = " or more" if len(reasons) == _MAX_PATHS else ""
        yield f"inbox: {len(reasons) - _MAX_SHOWN}{or_more} others"
