"""The threads that decode large pictures, several at a time.

Pillow decodes and resizes without the interpreter's lock. A small picture is decoded on the stage's own thread: with
it, passing the lock around would cost more than is gained.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

from PIL import Image

from fluxdrop.files.io_lock import release_io_lock
from fluxdrop.service.supervision.liveness import report_progress

T = TypeVar("T")

_KEPT_BLOCKS = 16
"""How many of Pillow's blocks of 16 MiB are used again: enough for two pictures of 24 megapixels."""


class DecodingThreads:
    """As many threads as this process has processors. They are started when there is work, and end with the process.

    One thread owns an instance.
    """

    def __init__(self) -> None:
        self._count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._started = 0

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have *work* done; return its future."""
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)

        if self._started < self._count:
            if not self._started:
                # Mapping new memory takes a quarter of the time of decoding a photo.
                Image.core.set_blocks_max(_KEPT_BLOCKS)  # type: ignore[attr-defined]
            self._started += 1
            # A decoder that hangs must not keep the process from ending.
            threading.Thread(target=self._run, name="decode", daemon=True).start()
        self._work.put(run)
        return future

    def trim(self) -> None:
        """Give back the memory that is kept for the next picture."""
        if self._started:
            Image.core.clear_cache()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Let the threads end when they have done what was submitted."""
        for _ in range(self._started):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def result_of(future: Future[T]) -> T:
    """Wait for *future*, without the I/O lock; return its result, or raise its error."""
    with release_io_lock():
        result = future.result()
    report_progress()
    return result


def end_all(futures: Sequence[Future[T]]) -> None:
    """Cancel those of *futures* that have not begun, and wait for the rest, without the I/O lock."""
    if futures:
        for future in futures:
            future.cancel()
        with release_io_lock():
            wait(futures)


class PixelBudget:
    """How many pixels may be in memory at a time, on all threads together: *most*, or one picture with more."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that waits until there is room for a number of pixels, and takes it until the body ends.

        Further calls of the function do nothing, so that no two pictures wait for each other.
        """
        taken = 0

        def take(pixels: int) -> None:
            nonlocal taken
            if taken or not pixels:
                return
            with self._changed:
                self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self.most)
                self._taken += pixels
            taken = pixels

        try:
            yield take
        finally:
            with self._changed:
                self._taken -= taken
                self._changed.notify_all()
