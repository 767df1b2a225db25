"""A stage: a thread that handles the items of a queue, and the one policy for errors in it.

========================================  ==============================================================
what a handler raises                     what happens to the items that are not settled
========================================  ==============================================================
Stopping                                  nothing: the next start takes up their jobs
a transient OSError or Outage             they wait, and are given to the handler again
anything else, over several items         each is handled again, alone
ChildDied, over one item                  it is handled again, until three processes died over its job
another FluxdropError, over one item      it fails for that reason
any other exception, over one item        it fails as ``internal``; the traceback goes to the log
========================================  ==============================================================

So nothing that a file or a result can cause ends a stage.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic

from fluxdrop.errors import FluxdropError, internal
from fluxdrop.files.io_lock import hold_io_lock, release_io_lock
from fluxdrop.files.transient import is_transient
from fluxdrop.outage import OutageTracker
from fluxdrop.processes.child import ChildDied
from fluxdrop.service.shutdown import Shutdown, Stopping
from fluxdrop.service.stages.handler import Batch, BatchOwner, Handler, T
from fluxdrop.service.supervision.defects import Defects
from fluxdrop.service.supervision.liveness import Liveness
from fluxdrop.service.supervision.process_deaths import ProcessDeaths

_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 10.0


@dataclass(frozen=True)
class Context:
    """What all stages of a daemon share."""

    work: Path
    """The folder of the claimed jobs."""
    shutdown: Shutdown = field(default_factory=Shutdown)
    deaths: ProcessDeaths = field(default_factory=ProcessDeaths)
    defects: Defects = field(default_factory=Defects)
    wait: Callable[[float], object] | None = None
    """Waits for the given number of seconds, or less if the daemon is to stop; by default `shutdown.wait`."""

    def is_transient(self, error: BaseException) -> bool:
        """Return whether *error* is transient, so that the work is to be tried again."""
        is_away = isinstance(error, FileNotFoundError) and not self.work.is_dir()
        return is_transient(error) or is_away

    def pause(self, seconds: float) -> None:
        """Wait for *seconds*. Raises Stopping if the daemon is to stop."""
        (self.wait or self.shutdown.wait)(seconds)
        if self.shutdown.begun:
            raise Stopping


class Stage(Generic[T]):
    """Runs a handler on a thread of its own."""

    def __init__(
        self, handler: Handler[T], context: Context, *, limit: int = 0, uses_io_lock: bool = False
    ) -> None:
        """Prepare the stage; `start` starts its thread.

        Args:
            handler: The work to do.
            context: What it shares with the other stages.
            limit: How many items may wait before `put` blocks; 0 means any number.
            uses_io_lock: Whether to handle batches under the I/O lock; see
                `fluxdrop.files.io_lock`.
        """
        self.name = handler.name
        self.outage = OutageTracker(handler.name)
        self.failure: BaseException | None = None
        """The error that ended the stage by itself, such as an engine that cannot be opened at the start."""
        self.liveness = Liveness()
        """When the stage last made progress.

        It is touched for each batch that is taken, tried or done, each item that is settled, each idle
        check, and each call of `report_progress` by the handler.
        """
        self._handler = handler
        self._context = context
        self._owner = BatchOwner(self._end, self._may_repeat, self._take, self._settled)
        self._io_lock = hold_io_lock if uses_io_lock else contextlib.nullcontext
        self._limit = limit
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        """Notified of each change to the queue."""
        self._is_finishing = False
        self._in_hand = 0
        self._thread = threading.Thread(target=self._run, name=handler.name, daemon=True)
        self.on_room: Callable[[], None] = lambda: None
        """Called, on the stage's thread, when its full queue has room again."""
        self.ready = threading.Event()
        """Set once the stage takes items, or never will."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, *items: T) -> None:
        """Queue *items*, waiting for room; if a batch has room for them, they are handled together.

        Raises:
            Stopping: The daemon is to stop.
        """
        while not self._add(items):
            with release_io_lock(), self._changed:
                self._changed.wait_for(lambda: self.has_room, timeout=0.5)
            # A thread that waits here is held up by this stage, but not stuck itself.
            self._context.shutdown.check()

    def put_now(self, *items: T) -> None:
        """Queue *items* without waiting for room. For the main loop, whose claims are bounded elsewhere."""
        with self._changed:
            self._items.extend(items)
            self._changed.notify_all()

    def recheck(self) -> None:
        """Have the handler asked again which of the items it can take. Any thread may call this."""
        with self._changed:
            self._changed.notify_all()

    @property
    def has_room(self) -> bool:
        """Return whether `put` would not block."""
        return not self._limit or len(self._items) < self._limit

    @property
    def waiting(self) -> int:
        """How many items wait or are in hand."""
        return len(self._items) + self._in_hand

    def stuck(self, seconds: float) -> bool:
        """Return whether there is work and no progress was made for *seconds*."""
        return self.waiting > 0 and self.liveness.silence > seconds

    def finish(self, timeout: float) -> bool:
        """Make the thread end after the queued items; return whether it did within *timeout* seconds."""
        with self._changed:
            self._is_finishing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self.liveness.bind_thread()
        try:
            self._retry_outages(self._handler.open)
            self.ready.set()
            while self._wait_for_items():
                with self._io_lock():
                    self._handle(self._take(self._handler.batch_size))
                    self._in_hand = 0
        except Stopping:
            pass
        except BaseException as error:
            self.failure = error
        finally:
            self.ready.set()
            self._close()

    def _close(self) -> None:
        try:
            self._handler.close()
        except Exception as error:
            self._context.defects.record(self.name, error)

    def _add(self, items: Sequence[T]) -> bool:
        with self._changed:
            if not self.has_room:
                return False
            self._items.extend(items)
            self._changed.notify_all()
            return True

    def _wait_for_items(self) -> bool:
        """Wait for items that can be taken; return False if none are left and the thread is to end."""
        while True:
            with self._changed:
                has_news = self._changed.wait_for(
                    lambda: self._can_take_any() or self._is_finishing,
                    timeout=self._handler.idle_check_seconds,
                )
                is_left = self._can_take_any()
            self.liveness.touch()
            if has_news:
                return is_left
            self._run_idle_check()

    def _run_idle_check(self) -> None:
        try:
            self.outage.attempt(self._handler.on_idle, self._context.is_transient)
        except Stopping:
            raise
        except FluxdropError as error:
            self.outage.begin(error.message)
        except Exception as error:
            self._context.defects.record(self.name, error)
        self.liveness.touch()

    def _can_take_any(self) -> bool:
        return any(map(self._handler.can_take, self._items))

    def _take(self, most: int) -> list[T]:
        with self._changed:
            had_room = self.has_room
            items: list[T] = []
            held: list[T] = []
            while self._items and len(items) < most:
                item = self._items.popleft()
                fits = not items or self._handler.group(item) == self._handler.group(items[0])
                (items if fits and self._handler.can_take(item) else held).append(item)
            self._items.extendleft(reversed(held))
            self._in_hand += len(items)
            self._changed.notify_all()
            has_room = self.has_room
        if has_room and not had_room:
            self.on_room()
        return items

    def _settled(self) -> None:
        self._in_hand -= 1

    def _handle(self, items: Sequence[T]) -> None:
        batch = Batch(items, self._owner)
        while batch:
            try:
                self._retry_outages(partial(self._attempt, batch))
                return
            except Stopping:
                raise
            except Exception as error:
                if not batch:
                    # All items are settled, but the defect is to be known.
                    self._context.defects.record(self.name, error)
                if len(batch) > 1:
                    for item in batch.unsettled:
                        self._handle([item])
                    return
                for item in batch.unsettled:
                    batch.conclude(item, error)

    def _attempt(self, batch: Batch[T]) -> None:
        try:
            self._handler.handle(batch)
        except Stopping:
            raise
        except Exception as error:
            self._raise_if_away(error)
            raise

    def _may_repeat(self, item: T, error: Exception) -> bool:
        return (
            isinstance(error, ChildDied)
            and item.job is not None
            and not self._context.deaths.record_death(item.job, error)
        )

    def _end(self, item: T, error: Exception) -> None:
        """Fail *item* because of *error*; if the error is transient, raise it."""
        if self._context.is_transient(error):
            raise error
        self._raise_if_away(error)
        if isinstance(error, FluxdropError):
            reason = error
        else:
            facts = {"job": item.job.id, "file": item.job.source} if item.job else {}
            self._context.defects.record(self.name, error, **facts)
            reason = internal(error, item.job.name if item.job else self.name)
        try:
            self._retry_outages(partial(self._handler.fail, item, reason))
        except Stopping:
            raise
        except Exception as second:
            self._context.defects.record(self.name, second)

    def _raise_if_away(self, error: Exception) -> None:
        """Raise a transient error if the folder of the jobs is away: *error* is then no job's fault."""
        work = self._context.work
        if not self._context.is_transient(error) and not work.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(work)) from error

    def _retry_outages(self, action: Callable[[], None]) -> None:
        """Call *action* until it raises no transient error, with growing pauses."""
        pause = _FIRST_PAUSE_SECONDS
        while not self.outage.attempt(action, self._context.is_transient):
            self.liveness.touch()
            with release_io_lock():
                self._context.pause(pause)
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)
        self.liveness.touch()
