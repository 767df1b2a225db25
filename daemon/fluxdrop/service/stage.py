"""A stage: one thread that works off a bounded queue, in batches where that pays."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from fluxdrop.passing import is_passing
from fluxdrop.service.pulse import Pulse, moved_on
from fluxdrop.trouble import Trouble
from fluxdrop.turns import turn, waiting

T = TypeVar("T")

TEND_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0


class Stopping(Exception):
    """The daemon stops; the work in hand is given back."""


class Stage(Generic[T]):
    """Calls *work* with up to *most* items at a time; *limit* items wait before `put` blocks, any
    number with a limit of 0.

    An OSError that *passes* (disk full, share gone) does not end the work: the same items are tried
    again until it succeeds, and `trouble` says why meanwhile. So *begin* and *work* must bear to be
    done again. Anything else that they let through ends the stage, and `failure` tells it. *tend*
    looks after what the stage keeps, every *tend_seconds* while no items come. *takes_turns*: with the
    other threads that do; see `fluxdrop.turns`.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[T]], None],
        *,
        most: int,
        limit: int,
        stop: threading.Event,
        begin: Callable[[], None] = lambda: None,
        end: Callable[[], None] = lambda: None,
        tend: Callable[[], None] | None = None,
        tend_seconds: float = TEND_SECONDS,
        passes: Callable[[OSError], bool] = is_passing,
        takes_turns: bool = False,
    ) -> None:
        self.name = name
        self.trouble = Trouble(name)
        self.failure: BaseException | None = None
        self.pulse = Pulse()
        """Beats with each batch that is taken, tried or done, each time that *tend* was called, and
        each time that *work* calls `moved_on`."""
        self._work = work
        self._most = most
        self._stop = stop
        self._begin = begin
        self._end = end
        self._tend = tend
        self._tend_seconds = tend_seconds if tend is not None else None
        self._passes = passes
        self._turn = turn if takes_turns else contextlib.nullcontext
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
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(item)
            return
        while True:
            try:
                with waiting():
                    self._queue.put(item, timeout=0.5)
            except queue.Full:
                # Whoever waits here is held up by this stage, and not stuck.
                moved_on()
                if self._stop.is_set():
                    raise Stopping from None
            else:
                return

    @property
    def waiting(self) -> int:
        """How many items wait or are in hand."""
        return self._queue.qsize() + self._in_hand

    def stuck(self, seconds: float) -> bool:
        """Whether there is work and nothing has moved for *seconds*."""
        return self.waiting > 0 and self.pulse.silence > seconds

    def finish(self, timeout: float) -> bool:
        """Ask the thread to end after what waits; False if it had not by *timeout* seconds."""
        deadline = time.monotonic() + timeout
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=timeout)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        self.pulse.adopt()
        try:
            self._insist(self._begin)
            self.ready.set()
            while True:
                items = self._take()
                if not items:
                    break
                self._in_hand = len(items)
                self._insist(partial(self._work_off, items))
                self._in_hand = 0
        except Stopping:
            pass
        except BaseException as error:
            self.failure = error
        finally:
            self.ready.set()
            self._end()

    def _work_off(self, items: list[T]) -> None:
        with self._turn():
            self._work(items)

    def _take(self) -> list[T]:
        items: list[T] = []
        try:
            item = self._await()
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

    def _await(self) -> T | None:
        while True:
            try:
                item = self._queue.get(timeout=self._tend_seconds)
            except queue.Empty:
                assert self._tend is not None
                self._insist(self._tend)
            else:
                self.pulse.beat()
                return item

    def _insist(self, work: Callable[[], None]) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self.trouble.attempt(work, self._passes):
            self.pulse.beat()
            if self._stop.wait(pause):
                raise Stopping
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        self.pulse.beat()
