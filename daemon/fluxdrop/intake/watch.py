"""Events of the inbox by watchdog, passed on as hints."""

from __future__ import annotations

import os
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

from fluxdrop.intake.ready import Hint

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
        # Full events tell a file that was moved in from elsewhere from one that was created here.
        self._observer = InotifyObserver(generate_full_events=True)
        self._observer.schedule(
            _Handler(inbox, notice), str(inbox), recursive=True, event_filter=_EVENTS
        )
        self._observer.schedule(
            _Handler(requests, lambda _path, _hint: requested()),
            str(requests),
            event_filter=[DirMovedEvent],
        )
        self._observer.start()

    def alive(self) -> bool:
        """Whether every thread behind the watch still runs."""
        return self._observer.is_alive() and all(
            emitter.is_alive() for emitter in self._observer.emitters
        )

    def close(self) -> None:
        """Stop watching."""
        self._observer.stop()
        self._observer.join()


class _Handler(FileSystemEventHandler):
    def __init__(self, folder: Path, notice: Notice) -> None:
        self._prefix = os.path.join(folder, "")  # noqa: PTH118 - the string's trailing slash is the point
        self._notice = notice

    def dispatch(self, event: FileSystemEvent) -> None:
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
