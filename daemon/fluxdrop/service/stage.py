"""A stage: one thread that works off a bounded queue, in batches where that pays."""

from __future__ import annotations

import contextlib
import errno
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from fluxdrop.logs import get_logger

T = TypeVar("T")

log = get_logger("fluxdrop.stage")

_PAUSE_SECONDS = 1.0
# What passes when somebody makes room, mounts a share again or mends permissions.
_PASSING = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
    errno.ETIMEDOUT,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
}


class Stopping(Exception):
    """The daemon stops; the work in hand is given back."""


class Stage(Generic[T]):
    """Calls *work* with up to *most* items at a time; *limit* items wait before `put` blocks, any
    number with a limit of 0. *idle* is called when there was no work for *idle_seconds*.

    An OSError of a passing kind (disk full, share gone) does not end the work: the same items are
    tried again until it succeeds, and `trouble` says why meanwhile. So *work* must bear to be done
    again. Anything else that *work* lets through ends the stage, and `failure` tells it.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[T]], None],
        *,
        most: int,
        limit: int,
        stop: threading.Event,
        begin: Callable[[], None] | None = None,
        end: Callable[[], None] | None = None,
        idle: Callable[[], None] | None = None,
        idle_seconds: float = 0.0,
    ) -> None:
        self.name = name
        self.trouble = ""
        self.failure: BaseException | None = None
        self._work = work
        self._most = most
        self._stop = stop
        self._begin = begin
        self._end = end
        self._idle = idle
        self._idle_seconds = idle_seconds
        self._queue: queue.Queue[T | None] = queue.Queue(limit)
        self._in_hand = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.ready = threading.Event()
        """Set when the stage takes items, or will never."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand *item* over, waiting for room. Raises Stopping when the daemon stops meanwhile."""
        while True:
            try:
                self._queue.put(item, timeout=0.5)
            except queue.Full:
                if self._stop.is_set():
                    raise Stopping from None
            else:
                return

    @property
    def waiting(self) -> int:
        """How many items wait or are in hand."""
        return self._queue.qsize() + self._in_hand

    def finish(self, timeout: float) -> bool:
        """Ask the thread to end after what waits; False if it had not by *timeout* seconds."""
        deadline = time.monotonic() + timeout
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=timeout)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            if self._begin is not None:
                self._begin()
            self.ready.set()
            while True:
                items = self._take()
                if not items:
                    break
                self._in_hand = len(items)
                self._insist(items)
                self._in_hand = 0
        except Stopping:
            pass
        except BaseException as error:
            self.failure = error
        finally:
            self.ready.set()
            if self._end is not None:
                self._end()

    def _take(self) -> list[T]:
        items: list[T] = []
        try:
            item = self._first()
            while item is not None:
                items.append(item)
                if len(items) == self._most:
                    return items
                item = self._queue.get_nowait()
            if items:
                # The wish to end was met behind these items: they are worked off first.
                self._queue.put_nowait(None)
        except queue.Empty:
            pass
        return items

    def _first(self) -> T | None:
        if self._idle is not None:
            try:
                return self._queue.get(timeout=self._idle_seconds)
            except queue.Empty:
                self._idle()
        return self._queue.get()

    def _insist(self, items: list[T]) -> None:
        while True:
            try:
                self._work(items)
            except OSError as error:
                if error.errno not in _PASSING:
                    raise
                self._complain(error)
                if self._stop.wait(_PAUSE_SECONDS):
                    raise Stopping from error
            else:
                if self.trouble:
                    log.info("goes on", stage=self.name)
                    self.trouble = ""
                return

    def _complain(self, error: OSError) -> None:
        where = f" ({error.filename})" if error.filename else ""
        trouble = f"{error.strerror}{where}"
        if trouble != self.trouble:
            log.error("pauses until this passes", stage=self.name, reason=trouble)
            self.trouble = trouble
