"""The thread that keeps a daemon's gallery up to date without holding up its jobs."""

from __future__ import annotations

import math
import threading
import time
from contextlib import closing, nullcontext

from fluxdrop.errors import FluxdropError
from fluxdrop.files.io_lock import hold_io_lock
from fluxdrop.files.layout import Root
from fluxdrop.gallery.gallery import Gallery
from fluxdrop.gallery.thumbnail import may_be_copied
from fluxdrop.jobs.store import Store
from fluxdrop.logs import get_logger
from fluxdrop.records.result import Record

log = get_logger("fluxdrop.gallery")

_PAUSE_SECONDS = 2.0
_RETRY_SECONDS = 30.0
_CLOSE_SECONDS = 10.0
_MAX_WAITING = 2000
_MANY_WAITING = _MAX_WAITING // 2
_MAX_TOGETHER = 240
_MAX_PUT_OFF_SECONDS = 30.0


class GalleryUpdater:
    """Shows ended jobs in the gallery, every two seconds or when a thousand wait; first those of earlier runs.

    While pictures are decoded, jobs of which smaller copies may have to be made are put off, for half a minute at most.

    An error is logged, reported by `last_error`, and the update is tried again; no job waits for it.
    """

    def __init__(self, root: Root) -> None:
        """Prepare the thread; `start` starts it."""
        self.last_error = ""
        """Why the last update failed; empty if it did not."""
        self.is_busy = False
        """Whether pictures wait or are decoded. Any thread may set it."""
        self._root = root
        self._gallery = Gallery(root)
        self._lock = threading.Lock()
        self._waiting: list[tuple[Record, str]] = []
        self._is_behind = True
        """Whether the gallery has to catch up with the index."""
        self._deadline = math.inf
        """When to stop catching up, by `time.monotonic`."""
        self._news = threading.Event()
        self._many = threading.Event()
        """Set when so many jobs wait that the next pause ends: if more did not fit, all records would be read again."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gallery", daemon=True)

    def start(self) -> None:
        """Start the thread. The index has to exist."""
        self._thread.start()

    def add(self, record: Record, path: str) -> None:
        """Queue a job that has ended; return at once.

        Args:
            record: The job's record.
            path: The record's JSON file, relative to the root.
        """
        with self._lock:
            if len(self._waiting) < _MAX_WAITING:
                self._waiting.append((record, path))
                if len(self._waiting) >= _MANY_WAITING:
                    self._many.set()
            else:
                # Keep no more in memory: the index has them, too.
                self._waiting.clear()
                self._is_behind = True
        self._news.set()

    def close(self) -> None:
        """Show the queued jobs and stop the thread, or give up after ten seconds."""
        self._deadline = time.monotonic() + _CLOSE_SECONDS
        self._closing.set()
        self._news.set()
        self._many.set()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        # The thread has no lower priority: it would then wait for a processor while it holds the
        # interpreter's lock, which all stages need.
        while not self._closing.is_set():
            if self._show():
                self._many.wait(_PAUSE_SECONDS)
                self._news.wait()
                self._put_off()
            else:
                self._closing.wait(_RETRY_SECONDS)
        self._show()

    def _put_off(self) -> None:
        until = time.monotonic() + _MAX_PUT_OFF_SECONDS
        while self.is_busy and time.monotonic() < until and not self._closing.is_set():
            with self._lock:
                if not any(may_be_copied(record) for record, _ in self._waiting):
                    return
            self._closing.wait(_PAUSE_SECONDS)

    def _show(self) -> bool:
        self._news.clear()
        try:
            self._update()
        except Exception as error:
            self._is_behind = True
            self._report_error(error)
            return False
        self.last_error = ""
        return True

    def _update(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
            self._many.clear()
            is_behind, self._is_behind = self._is_behind, False
        if is_behind or not self._add(waiting):
            with closing(Store(self._root.database, read_only=True)) as store:
                ended = store.ended()
            self._gallery.catch_up(ended, lambda: time.monotonic() < self._deadline)

    def _add(self, ended: list[tuple[Record, str]]) -> bool:
        """Show *ended*, a part of it at a time; return False if the gallery has to catch up."""
        for first in range(0, max(1, len(ended)), _MAX_TOGETHER):
            part = ended[first : first + _MAX_TOGETHER]
            # Decoding a large picture takes longer than others wait for the lock.
            is_slow = any(may_be_copied(record) for record, _ in part)
            with nullcontext() if is_slow else hold_io_lock():
                if not self._gallery.add(part):
                    return False
        return True

    def _report_error(self, error: Exception) -> None:
        reason = error.message if isinstance(error, FluxdropError) else str(error)
        if reason != self.last_error:
            log.warning(
                "the gallery is behind",
                reason=reason,
                hint=error.hint if isinstance(error, FluxdropError) else "",
            )
        self.last_error = reason
