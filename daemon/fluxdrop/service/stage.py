"""A stage: one thread that works off a bounded queue, in batches where that pays."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
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
        self._limit = limit
        self._items: deque[T] = deque()
        self._moved = threading.Condition()
        """Told of each change to the items that wait."""
        self._is_ending = False
        self._in_hand = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.ready = threading.Event()
        """Set when the stage takes items, or will never."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand *item* over, waiting for room. Raises Stopping when the daemon stops meanwhile."""
        self.put_all([item])

    def put_all(self, items: Sequence[T]) -> None:
        """Hand *items* over as `put` does one, together: so they are taken as one batch."""
        while not self._add(items):
            with waiting(), self._moved:
                self._moved.wait_for(self._has_room, timeout=0.5)
            # Whoever waits here is held up by this stage, and not stuck.
            moved_on()
            if self._stop.is_set():
                raise Stopping

    @property
    def waiting(self) -> int:
        """How many items wait or are in hand."""
        return len(self._items) + self._in_hand

    def stuck(self, seconds: float) -> bool:
        """Whether there is work and nothing has moved for *seconds*."""
        return self.waiting > 0 and self.pulse.silence > seconds

    def finish(self, timeout: float) -> bool:
        """Ask the thread to end after what waits; False if it had not by *timeout* seconds."""
        with self._moved:
            self._is_ending = True
            self._moved.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self.pulse.adopt()
        try:
            self._insist(self._begin)
            self.ready.set()
            while self._await():
                with self._turn():
                    items = self._take()
                    self._insist(partial(self._work, items))
                    self._in_hand = 0
        except Stopping:
            pass
        except BaseException as error:
            self.failure = error
        finally:
            self.ready.set()
            self._end()

    def _has_room(self) -> bool:
        return not self._limit or len(self._items) < self._limit

    def _add(self, items: Sequence[T]) -> bool:
        with self._moved:
            if not self._has_room():
                return False
            self._items.extend(items)
            self._moved.notify_all()
            return True

    def _await(self) -> bool:
        """Wait for items; False when there are none left and the thread is to end."""
        while True:
            with self._moved:
                has_news = self._moved.wait_for(
                    lambda: self._items or self._is_ending, timeout=self._tend_seconds
                )
            if has_news:
                self.pulse.beat()
                return bool(self._items)
            assert self._tend is not None
            self._insist(self._tend)

    def _take(self) -> list[T]:
        with self._moved:
            self._in_hand = min(self._most, len(self._items))
            items = [self._items.popleft() for _ in range(self._in_hand)]
            self._moved.notify_all()
            return items

    def _insist(self, work: Callable[[], None]) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self.trouble.attempt(work, self._passes):
            self.pulse.beat()
            with waiting():
                is_stopping = self._stop.wait(pause)
            if is_stopping:
                raise Stopping
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        self.pulse.beat()
