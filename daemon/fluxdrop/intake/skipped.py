"""What the intake leaves alone, and why, told once however often a scan finds it."""

from __future__ import annotations

from collections.abc import Iterator

from fluxdrop.logs import get_logger
from fluxdrop.printable import printable

log = get_logger("fluxdrop.intake")

_MOST = 100
_MOST_SHOWN = 5


class Skipped:
    """Paths below the inbox, or whole ones of folders, with reasons; of very many, the first."""

    def __init__(self) -> None:
        self._left: dict[str, str] = {}
        self._before: dict[str, str] = {}

    def begin_scan(self) -> None:
        """What still is to be left alone, the scan that begins finds again."""
        self._before, self._left = self._left, {}

    def add(self, path: str, reason: str, error: Exception | None = None) -> None:
        """Leave *path* alone because of *reason*, and say so if that is new, with the traceback of *error*."""
        path = printable(path)
        if len(self._left) >= _MOST and path not in self._left:
            return
        if reason not in (self._left.get(path), self._before.get(path)):
            log.warning("left alone", file=path, reason=reason, exc_info=error)
        self._left[path] = reason

    def reasons(self) -> dict[str, str]:
        """What was left alone since the last scan began, and why."""
        return dict(self._left)

    def summary(self, inbox: str) -> Iterator[str]:
        """A line for each of the first, and one for the rest; the *inbox* itself has its own trouble."""
        left = [(path, reason) for path, reason in self._left.items() if path != inbox]
        for path, reason in left[:_MOST_SHOWN]:
            yield f"inbox: {path}: {reason}"
        if len(left) > _MOST_SHOWN:
            yield f"inbox: {len(left) - _MOST_SHOWN} more"
