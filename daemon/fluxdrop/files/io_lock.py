"""Turns of the threads that work through many small files.

CPython's lock passes to another thread at nearly every system call. Threads that all have work then wake
each other dozens of times a picture, which costs more than what they do meanwhile. So one of them at a
time has the turn; nobody waits for it long, as on a slow share it is the files that are waited for, and
those can be waited for side by side.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST_WAIT_SECONDS = 0.05


class _Queue:
    """A lock that threads get in the order in which they asked for it: of Python's own, a thread that
    always has work would get hold again before any other wakes up."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._calls: deque[threading.Lock] = deque()
        """What wakes each thread that waits."""

    def acquire(self) -> bool:
        """Whether it was this thread's turn before long."""
        with self._guard:
            if not self._taken:
                self._taken = True
                return True
            call = threading.Lock()
            call.acquire()
            self._calls.append(call)
        if call.acquire(timeout=_LONGEST_WAIT_SECONDS):
            return True
        with self._guard:
            if call not in self._calls:
                return True
            self._calls.remove(call)
            return False

    def release(self) -> None:
        """Let the next one have it."""
        with self._guard:
            if self._calls:
                self._calls.popleft().release()
            else:
                self._taken = False


_queue = _Queue()
_here = threading.local()


@contextmanager
def hold_io_lock() -> Iterator[None]:
    """Work in this thread's turn, or without it where that does not come soon. Not to be nested."""
    _here.has_it = _queue.acquire()
    try:
        yield
    finally:
        _give_up()


@contextmanager
def release_io_lock() -> Iterator[None]:
    """Let others have the turn, if this thread has it, while it waits for a disk or for them."""
    had_it = _give_up()
    try:
        yield
    finally:
        if had_it:
            _here.has_it = _queue.acquire()


def _give_up() -> bool:
    """Give up the turn; whether this thread had it."""
    had_it = getattr(_here, "has_it", False)
    _here.has_it = False
    if had_it:
        _queue.release()
    return had_it
