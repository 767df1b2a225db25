"""Events of the inbox by watchdog, passed on as hints."""

from __future__ import annotations

import errno
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.inotify import InotifyObserver
from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper
from watchdog.utils import BaseThread

from fluxdrop.intake.ready import Hint

# What leaves the inbox, as each claim does, holds up every event behind it until it is known
# whether it came to another place in the inbox; watchdog waits half a second for that.
InotifyMoveEventGrouper.delay = 0.02

Notice = Callable[[str, Hint | None], None]
"""Told a path relative to the watched folder, and what happened to it; None: a folder came."""

_EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]


class Watch:
    """Watches *inbox* with its subfolders, and *requests* without, until closed."""

    def __init__(self, inbox: Path, notice: Notice, requests: Path, requested: Callable[[], None]):
        self._inbox = inbox
        self._watched = _identity(inbox)
        # Resolved, as watchdog does not follow an inbox that is itself a symlink.
        inbox = inbox.resolve()
        # A folder that is made with its subfolders at once is watched twice over, to no harm.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        others = set(threading.enumerate())
        # Full events tell a file that was moved in from elsewhere from one that was created here.
        self._observer = InotifyObserver(generate_full_events=True)
        self._observer.schedule(
            _Handler(inbox, notice), str(inbox), recursive=True, event_filter=_EVENTS
        )
        self._observer.schedule(
            _Handler(requests, lambda _path, _hint: requested()),
            str(requests),
            event_filter=[DirMovedEvent, FileMovedEvent],
        )
        try:
            self._observer.start()
        except (OSError, RecursionError) as error:
            # It holds a thread and descriptors from its construction on.
            self._observer.stop()
            if isinstance(error, OSError):
                raise
            # watchdog goes down one call deeper for each folder in a folder.
            raise OSError(errno.ENAMETOOLONG, "folders lie too deep in each other") from error
        self._threads = [
            thread
            for thread in threading.enumerate()
            if thread not in others and isinstance(thread, BaseThread)
        ]

    def alive(self) -> bool:
        """Whether every thread behind the watch still runs, and the inbox is still the one that it
        watches.
        """
        return all(thread.is_alive() for thread in self._threads) and self._watched == _identity(
            self._inbox
        )

    def close(self) -> None:
        """Stop watching."""
        self._observer.stop()
        self._observer.join()


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Handler(FileSystemEventHandler):
    def __init__(self, folder: Path, notice: Notice) -> None:
        self._prefix = os.path.join(folder, "")  # noqa: PTH118 - the string's trailing slash is the point
        self._notice = notice

    def dispatch(self, event: FileSystemEvent) -> None:
        if event.is_synthetic:
            # Who is told of a folder looks at all that is in it.
            return
        moved = isinstance(event, FileMovedEvent | DirMovedEvent)
        path = os.fsdecode(event.dest_path if moved else event.src_path)
        if not path.startswith(self._prefix):
            return
        relative = path[len(self._prefix) :]
        if event.is_directory:
            self._notice(relative, None)
        elif moved:
            self._notice(relative, Hint.MOVED_IN)
        elif isinstance(event, FileClosedEvent):
            self._notice(relative, Hint.CLOSED)
        else:
            self._notice(relative, Hint.CHANGED)
