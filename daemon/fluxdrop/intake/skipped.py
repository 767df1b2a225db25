"""What the intake leaves alone, and why, told once however often a scan finds it."""

from __future__ import annotations

from collections.abc import Iterator

from fluxdrop.logs import get_logger
from fluxdrop.printable import printable

log = get_logger("fluxdrop.intake")

_MAX_PATHS = 100
_MAX_SHOWN = 5


class Skipped:
    """Paths below the inbox, or whole ones of folders, with reasons; of very many, the first."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._previous: dict[str, str] = {}

    def begin_scan(self) -> None:
        """What still is to be left alone, the scan that begins finds again."""
        self._previous, self._reasons = self._reasons, {}

    def add(self, path: str, reason: str, error: Exception | None = None) -> None:
        """Leave *path* alone because of *reason*, and say so if that is new, with the traceback of *error*."""
        path = printable(path)
        if len(self._reasons) >= _MAX_PATHS and path not in self._reasons:
            return
        if reason not in (self._reasons.get(path), self._previous.get(path)):
            log.warning("left alone", file=path, reason=reason, exc_info=error)
        self._reasons[path] = reason

    def reasons(self) -> dict[str, str]:
        """What was left alone since the last scan began, and why."""
        return dict(self._reasons)

    def summary(self, inbox: str) -> Iterator[str]:
        """A line for each of the first, and one for the rest; the *inbox* itself has its own trouble."""
        shown = [(path, reason) for path, reason in self._reasons.items() if path != inbox]
        for path, reason in shown[:_MAX_SHOWN]:
            yield f"inbox: {path}: {reason}"
        if len(shown) > _MAX_SHOWN:
            yield f"inbox: {len(shown) - _MAX_SHOWN} more"
