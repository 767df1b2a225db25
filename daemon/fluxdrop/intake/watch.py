"""Events of the inbox, read from inotify by watchdog and passed on as hints."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
)

from fluxdrop.intake.ready import Hint
from fluxdrop.logs import get_logger

log = get_logger("fluxdrop.intake")

Notice = Callable[[str, Hint | None], None]
"""Told a path relative to the watched folder, and what happened to it; None: a folder came."""

_FOLDERS_ALONE = InotifyConstants.IN_ONLYDIR | InotifyConstants.IN_DONT_FOLLOW
_ARRIVALS = Mask(_FOLDERS_ALONE | InotifyConstants.IN_MOVED_TO)
_CHANGES = Mask(
    _ARRIVALS
    | InotifyConstants.IN_CREATE
    | InotifyConstants.IN_MODIFY
    | InotifyConstants.IN_CLOSE_WRITE
)


class Watch:
    """Watches *inbox* with its subfolders, and *requests* without, until closed.

    *notice* and *requested* are called in a thread of the watch. Raises OSError where there can be
    no watch.
    """

    def __init__(self, inbox: Path, notice: Notice, requests: Path, requested: Callable[[], None]):
        self._watched = {folder: _identity(folder) for folder in (inbox, requests)}
        self._reader = _Reader()
        try:
            # Resolved, as no watch follows a symlink.
            _Tree(self._reader, inbox.resolve(), notice)
            _Arrivals(self._reader, requests, requested)
        except OSError:
            # Its thread is what closes its descriptors.
            self._reader.start()
            self.close()
            raise
        self._reader.start()

    def alive(self) -> bool:
        """Whether events still arrive, of the very folders that lie there now."""
        return self._reader.is_alive() and all(
            watched == _identity(folder) for folder, watched in self._watched.items()
        )

    def close(self) -> None:
        """Stop watching."""
        self._reader.stop()
        self._reader.join()


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Reader(InotifyFD):
    """Reads the events, and calls back for each in its thread, which ends with a line in the log
    when something fails.
    """

    def run(self) -> None:
        """See `InotifyFD.run`."""
        try:
            super().run()
        except Exception as error:
            log.warning("events of the inbox cannot be read any more", reason=repr(error))


class _Arrivals:
    """Calls *arrived* whenever something was moved into *folder*."""

    def __init__(self, reader: InotifyFD, folder: Path, arrived: Callable[[], None]) -> None:
        self._arrived = arrived
        _add(reader, str(folder), _ARRIVALS, self, CallbackId(0))

    def on_event(self, event: InotifyEvent) -> None:
        """See `WatchCallback`."""
        self._arrived()

    def on_queue_overflow(self) -> None:
        """See `WatchCallback`."""
        self._arrived()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """See `WatchCallback`."""


class _Tree:
    """Watches *top* with all folders below it, and tells *notice* of what happens in them.

    watchdog's Observer watches subfolders, too, but its InotifyWatchGroup has no settings for what
    matters here, as of 7.1: it ends with a KeyError when folders take each other's names
    (docs/known-defects.md), and it holds up every event for half a second when a file leaves, which
    each claim makes one do. So this takes the events from its InotifyFD and keeps the paths itself.
    """

    def __init__(self, reader: InotifyFD, top: Path, notice: Notice) -> None:
        self._reader = reader
        self._top = str(top)
        self._notice = notice
        self._ids = itertools.count()
        self._folders: dict[WatchDescriptor, tuple[str, CallbackId]] = {}
        """Each folder's path below the top, and the id by which its events come here. One that left stays
        until it is deleted; what is told of it is a hint of a file that is not there."""
        self._watch("")

    def on_event(self, event: InotifyEvent) -> None:
        """See `WatchCallback`."""
        folder = self._folders.get(event.wd)
        if folder is None or not event.name:
            return
        path = os.path.join(folder[0], os.fsdecode(event.name))  # noqa: PTH118 - events are many
        if event.is_directory:
            if event.is_create or event.is_moved_to:
                self._watch(path)
                # Who is told of a folder looks at all that is in it.
                self._notice(path, None)
        elif event.is_moved_to:
            self._notice(path, Hint.MOVED_IN)
        elif event.is_close_write:
            self._notice(path, Hint.CLOSED)
        else:
            self._notice(path, Hint.CHANGED)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """See `WatchCallback`."""
        self._folders.pop(wd, None)

    def on_queue_overflow(self) -> None:
        """See `WatchCallback`. The files of which no event came are found by the next scan."""
        self._watch("")

    def _watch(self, path: str) -> None:
        """Watch the folder *path* and those below it that are there and can be watched.

        Raises OSError where the top cannot be.
        """
        paths = [path]
        while paths:
            path = paths.pop()
            folder = os.path.join(self._top, path)  # noqa: PTH118
            try:
                self._watch_one(path, folder)
                # A folder that comes after this has an event of its own.
                with os.scandir(folder) as entries:
                    names = [each.name for each in entries if each.is_dir(follow_symlinks=False)]
            except OSError:
                if not path:
                    raise
                continue
            paths += [os.path.join(path, name) for name in names]  # noqa: PTH118

    def _watch_one(self, path: str, folder: str) -> None:
        # With one id for all of them, watchdog would warn of a folder that is watched already.
        new_id = CallbackId(next(self._ids))
        wd = _add(self._reader, folder, _CHANGES, self, new_id)
        known = self._folders.get(wd)
        self._folders[wd] = (path, new_id)
        if known is not None:
            self._reader.remove_callbacks([(wd, known[1])])


def _add(
    reader: InotifyFD, folder: str, mask: Mask, callback: _Tree | _Arrivals, id_: CallbackId
) -> WatchDescriptor:
    """Have *reader* call back for *folder*. Raises OSError where it cannot."""
    wd = reader.add_callback(os.fsencode(folder), mask, callback, id_)
    if wd == -1:
        # This is how InotifyFD tells of a folder that may not be read.
        reader.remove_callbacks([(wd, id_)])
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
    return wd
