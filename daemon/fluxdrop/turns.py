"""Turns of the threads that work through many small files.

CPython's lock passes to another thread at nearly every system call. Threads that all have work then wake
each other dozens of times a picture, which costs more than what they do meanwhile. So one of them at a
time has the turn; nobody waits for it long, as on a slow share it is the files that are waited for, and
those can be waited for side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST_WAIT_SECONDS = 0.05

_turn = threading.Lock()
_here = threading.local()


@contextmanager
def turn() -> Iterator[None]:
    """Work in this thread's turn, or without it where that does not come soon. Not to be nested."""
    _here.has_it = _turn.acquire(timeout=_LONGEST_WAIT_SECONDS)
    try:
        yield
    finally:
        _give_up()


@contextmanager
def waiting() -> Iterator[None]:
    """Let others have the turn, if this thread has it, while it waits for a disk or for them."""
    had_it = _give_up()
    try:
        yield
    finally:
        if had_it:
            _here.has_it = _turn.acquire(timeout=_LONGEST_WAIT_SECONDS)


def _give_up() -> bool:
    """Give up the turn; whether this thread had it."""
    had_it = getattr(_here, "has_it", False)
    _here.has_it = False
    if had_it:
        _turn.release()
    return had_it
