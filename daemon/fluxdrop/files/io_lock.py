"""A process-wide lock that the threads hold while they work through many small files.

CPython's interpreter lock passes to another thread at nearly every system call. Threads that all have
work then wake each other dozens of times for each picture, which costs more than the work itself. So
only one of them works at a time. No thread waits longer than 50 ms for the lock: on a slow share the
time goes into waiting for files, which several threads can do at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_ACQUIRE_TIMEOUT_SECONDS = 0.05


class _FairLock:
    """A lock that threads get in the order in which they asked for it.

    A `threading.Lock` is not fair: a thread that always has work would get it again before another
    wakes up.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locked = False
        self._waiters: deque[threading.Lock] = deque()
        """A lock for each waiting thread; releasing it wakes the thread."""

    def acquire(self) -> bool:
        """Acquire the lock; return False after 50 ms."""
        with self._guard:
            if not self._locked:
                self._locked = True
                return True
            waiter = threading.Lock()
            waiter.acquire()
            self._waiters.append(waiter)
        if waiter.acquire(timeout=_ACQUIRE_TIMEOUT_SECONDS):
            return True
        with self._guard:
            if waiter not in self._waiters:
                return True
            self._waiters.remove(waiter)
            return False

    def release(self) -> None:
        """Hand the lock to the thread that has waited longest, or unlock it."""
        with self._guard:
            if self._waiters:
                self._waiters.popleft().release()
            else:
                self._locked = False


_io_lock = _FairLock()
_thread = threading.local()


@contextmanager
def hold_io_lock() -> Iterator[None]:
    """Hold the lock for the body; run the body without it after 50 ms. Must not be nested."""
    _thread.holds_lock = _io_lock.acquire()
    try:
        yield
    finally:
        _release()


@contextmanager
def release_io_lock() -> Iterator[None]:
    """Release the lock, if this thread holds it, for a body that waits for a disk or for other threads."""
    held = _release()
    try:
        yield
    finally:
        if held:
            _thread.holds_lock = _io_lock.acquire()


def _release() -> bool:
    """Release the lock if this thread holds it; return whether it did."""
    held = getattr(_thread, "holds_lock", False)
    _thread.holds_lock = False
    if held:
        _io_lock.release()
    return held
