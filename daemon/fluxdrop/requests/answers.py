"""The daemon's answers to requests, in .fluxdrop/answers/."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

import msgspec

from fluxdrop import failpoints
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.printable import printable
from fluxdrop.requests.messages import Answer

_MAX_PENDING = 4096
_MAX_KEPT = 4096
_KEPT_SECONDS = 600.0


class Answers:
    """The answers in the folder *path*, each kept for ten minutes. Owned by the main loop."""

    def __init__(self, path: Path) -> None:
        """Remove the answers of an earlier daemon. Raises OSError."""
        self._path = path
        self._written: deque[tuple[float, str]] = deque()
        """When each answer was written, by the monotonic clock, and the request's id; oldest first."""
        self._pending: deque[tuple[str, FluxdropError | None]] = deque(maxlen=_MAX_PENDING)
        """Answers that could not be written yet: the requests' ids, and the errors or None."""
        # Whoever waits for an answer of an earlier daemon knows that it ended.
        durable.empty_tree(path)

    def write_or_keep(self, request_id: str, error: FluxdropError | None) -> None:
        """Call `write`; if the disk is full or not available, keep the answer for `write_pending`."""
        try:
            self.write(request_id, error)
        except OSError:
            self._pending.append((request_id, error))

    def write(self, request_id: str, error: FluxdropError | None) -> None:
        """Answer the request with *error*, or None if it was done. Raises OSError."""
        # The error may contain a path that is not UTF-8.
        facts = (error.kind, printable(error.message), printable(error.hint)) if error else ()
        durable.write(self._file(request_id), msgspec.json.encode(Answer(*facts)), sync=False)
        self._written.append((time.monotonic(), request_id))
        failpoints.reach("request-answered")

    def write_pending(self) -> None:
        """Write the answers that could not be written before. Raises OSError."""
        while self._pending:
            self.write(*self._pending[0])
            self._pending.popleft()

    def forget_old(self) -> None:
        """Remove the answers that are too old or too many. Raises OSError."""
        old = time.monotonic() - _KEPT_SECONDS
        while self._written and (self._written[0][0] < old or len(self._written) > _MAX_KEPT):
            _, request_id = self._written.popleft()
            self._file(request_id).unlink(missing_ok=True)

    def _file(self, request_id: str) -> Path:
        return self._path / f"{request_id}.json"
