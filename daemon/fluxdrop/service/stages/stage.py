"""A stage: one thread that works off a bounded queue, and the one policy for what goes wrong there.

========================================  ==============================================================
what a handler raises                     what becomes of the items that are still open
========================================  ==============================================================
Stopping                                  nothing: the next start takes their jobs up
an OSError or Outage that passes          they wait, and are handed to the handler again
anything else, over several items         each is handled again, alone
ChildDied, over one item                  it is handled again, until its job has cost three processes
another FluxdropError, over one item      it is given up for that reason
any other exception, over one item        it is given up as ``internal``; the traceback goes to the log
========================================  ==============================================================

So nothing that a file or a result can cause ends a stage.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from fluxdrop.errors import FluxdropError, internal
from fluxdrop.files.io_lock import hold_io_lock, release_io_lock
from fluxdrop.files.transient import is_transient
from fluxdrop.jobs.job import Job
from fluxdrop.outage import OutageTracker
from fluxdrop.processes.child import ChildDied
from fluxdrop.service.shutdown import Shutdown, Stopping
from fluxdrop.service.supervision.defects import Defects
from fluxdrop.service.supervision.liveness import Liveness, report_progress
from fluxdrop.service.supervision.process_deaths import ProcessDeaths

IDLE_CHECK_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 10.0


class Item(Protocol):
    """What passes through a stage."""

    @property
    def job(self) -> Job | None:
        """The job that it is about, if it is about one."""


T = TypeVar("T", bound=Item)


class Handler(ABC, Generic[T]):
    """What one stage does. All of it but the constructor runs on the stage's thread."""

    name: str
    batch_size: int = 1
    """How many items make a batch at most."""
    idle_check_seconds: float | None = None
    """How often `tend` is called while no items come; None: never."""

    def open(self) -> None:
        """Get ready before the first item. What it raises, but for what passes, ends the daemon's start."""

    @abstractmethod
    def handle(self, batch: Batch[T]) -> None:
        """Do what is to be done with the open items of *batch* and settle each as it is done with; what
        is left open when this returns counts as settled.

        It may raise anything (see the module), and has to bear to be called again with what was open then.
        """

    @abstractmethod
    def give_up(self, item: T, error: FluxdropError) -> None:
        """End *item*, which cannot be handled because of *error*."""

    def on_idle(self) -> None:
        """Look after what the stage keeps."""

    def close(self) -> None:
        """Let go of what the stage keeps; nothing comes after this."""


class Batch(Generic[T]):
    """The items that a handler has in hand, each of them open until it is settled."""

    def __init__(self, items: Sequence[T], end: Callable[[T, Exception], None]) -> None:
        self._items = {id(item): item for item in items}
        self._end = end

    def __len__(self) -> int:
        return len(self._items)

    @property
    def open(self) -> list[T]:
        """The items that are not settled, in their order."""
        return list(self._items.values())

    def settle(self, *items: T) -> None:
        """*items* are done with: handed on, or given up."""
        for item in items:
            self._items.pop(id(item), None)
        report_progress()

    @contextmanager
    def guard(self, item: T) -> Iterator[None]:
        """Have what goes wrong in the body end *item* alone, by the policy, and not the batch.

        Stopping, what passes and ChildDied come through.
        """
        try:
            yield
        except (Stopping, ChildDied):
            raise
        except Exception as error:
            self._end(item, error)
            self.settle(item)


@dataclass(frozen=True)
class Context:
    """What all stages of a daemon share. *work* is the folder of the claimed jobs; *wait* waits for so many
    seconds, or less if the daemon is to end.
    """

    work: Path
    shutdown: Shutdown = field(default_factory=Shutdown)
    deaths: ProcessDeaths = field(default_factory=ProcessDeaths)
    defects: Defects = field(default_factory=Defects)
    wait: Callable[[float], object] | None = None

    def passes(self, error: BaseException) -> bool:
        """Whether *error* is one to wait out."""
        is_away = isinstance(error, FileNotFoundError) and not self.work.is_dir()
        return is_transient(error) or is_away

    def pause(self, seconds: float) -> None:
        """Wait for *seconds*. Raises Stopping when the daemon is to end."""
        (self.wait or self.shutdown.wait)(seconds)
        if self.shutdown.begun:
            raise Stopping


class Stage(Generic[T]):
    """Runs *handler* on a thread of its own. *limit* items wait before `put` blocks, any number with a limit
    of 0. *uses_io_lock*: with the other threads that do; see `fluxdrop.files.io_lock`.
    """

    def __init__(
        self, handler: Handler[T], context: Context, *, limit: int = 0, uses_io_lock: bool = False
    ) -> None:
        self.name = handler.name
        self.trouble = OutageTracker(handler.name)
        self.failure: BaseException | None = None
        """What ended the stage before its time: an engine that cannot be opened at the start."""
        self.pulse = Liveness()
        """Beats with each batch that is taken, tried or done, each item that is settled, each time that the
        handler tended, and each time that it calls `report_progress`."""
        self._handler = handler
        self._context = context
        self._io_lock = hold_io_lock if uses_io_lock else contextlib.nullcontext
        self._limit = limit
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        """Told of each change to the items that wait."""
        self._is_finishing = False
        self._in_hand = 0
        self._thread = threading.Thread(target=self._run, name=handler.name, daemon=True)
        self.ready = threading.Event()
        """Set when the stage takes items, or will never."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, *items: T) -> None:
        """Hand *items* over, waiting for room. Together: so they are taken as one batch, if that has room
        for them. Raises Stopping when the daemon is to end meanwhile.
        """
        while not self._add(items):
            with release_io_lock(), self._changed:
                self._changed.wait_for(self._has_room, timeout=0.5)
            # Whoever waits here is held up by this stage, and not stuck.
            self._context.shutdown.check()

    def put_now(self, *items: T) -> None:
        """Hand *items* over, without waiting for room; for the main loop, whose claims are bounded elsewhere."""
        with self._changed:
            self._items.extend(items)
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many items wait or are in hand."""
        return len(self._items) + self._in_hand

    def stuck(self, seconds: float) -> bool:
        """Whether there is work and nothing has moved for *seconds*."""
        return self.waiting > 0 and self.pulse.silence > seconds

    def finish(self, timeout: float) -> bool:
        """Ask the thread to end after what waits; False if it had not by *timeout* seconds."""
        with self._changed:
            self._is_finishing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self.pulse.bind_thread()
        try:
            self._retry_outages(self._handler.open)
            self.ready.set()
            while self._wait_for_items():
                with self._io_lock():
                    self._handle(self._take())
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

    def _has_room(self) -> bool:
        return not self._limit or len(self._items) < self._limit

    def _add(self, items: Sequence[T]) -> bool:
        with self._changed:
            if not self._has_room():
                return False
            self._items.extend(items)
            self._changed.notify_all()
            return True

    def _wait_for_items(self) -> bool:
        """Wait for items; False when there are none left and the thread is to end."""
        while True:
            with self._changed:
                has_news = self._changed.wait_for(
                    lambda: self._items or self._is_finishing,
                    timeout=self._handler.idle_check_seconds,
                )
            self.pulse.beat()
            if has_news:
                return bool(self._items)
            self._run_idle_check()

    def _run_idle_check(self) -> None:
        try:
            self.trouble.attempt(self._handler.on_idle, self._context.passes)
        except Stopping:
            raise
        except FluxdropError as error:
            self.trouble.begin(error.message)
        except Exception as error:
            self._context.defects.record(self.name, error)
        self.pulse.beat()

    def _take(self) -> list[T]:
        with self._changed:
            self._in_hand = min(self._handler.batch_size, len(self._items))
            items = [self._items.popleft() for _ in range(self._in_hand)]
            self._changed.notify_all()
            return items

    def _handle(self, items: Sequence[T]) -> None:
        batch = Batch(items, self._end)
        while batch:
            try:
                self._retry_outages(partial(self._attempt, batch))
                return
            except Stopping:
                raise
            except Exception as error:
                if not batch:
                    # It costs no item, but is to be known.
                    self._context.defects.record(self.name, error)
                if len(batch) > 1:
                    for item in batch.open:
                        self._handle([item])
                    return
                for item in batch.open:
                    if not self._may_repeat(item, error):
                        self._end(item, error)
                        return

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
        """Give *item* up because of *error*, unless that passes, which is raised again."""
        if self._context.passes(error):
            raise error
        self._raise_if_away(error)
        if isinstance(error, FluxdropError):
            reason = error
        else:
            facts = {"job": item.job.id, "file": item.job.source} if item.job else {}
            self._context.defects.record(self.name, error, **facts)
            reason = internal(error, item.job.name if item.job else self.name)
        try:
            self._retry_outages(partial(self._handler.give_up, item, reason))
        except Stopping:
            raise
        except Exception as second:
            self._context.defects.record(self.name, second)

    def _raise_if_away(self, error: Exception) -> None:
        """Raise what is waited out while the folder of the jobs is away, which is no job's fault."""
        work = self._context.work
        if not self._context.passes(error) and not work.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(work)) from error

    def _retry_outages(self, work: Callable[[], None]) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self.trouble.attempt(work, self._context.passes):
            self.pulse.beat()
            with release_io_lock():
                self._context.pause(pause)
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)
        self.pulse.beat()
