"""Watch the inbox: read its inotify events with watchdog, and pass them on as hints."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
)

from fluxdrop.files.folders import MAX_LEVELS, open_folder
from fluxdrop.intake.ready import Hint
from fluxdrop.logs import get_logger

log = get_logger("fluxdrop.intake")

Notice = Callable[[str, Hint | None], None]
"""A callback that takes a path relative to the watched folder and what happened to it; None: a folder came."""

_ARRIVALS = Mask(
    InotifyConstants.IN_ONLYDIR | InotifyConstants.IN_DONT_FOLLOW | InotifyConstants.IN_MOVED_TO
)
# Its path is a link to an open folder.
_CHANGES = Mask(
    InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_CREATE
    | InotifyConstants.IN_MODIFY
    | InotifyConstants.IN_CLOSE_WRITE
)

# The system limit that inotify(7) has reached, by the error that it reports.
_SYSTEM_LIMITS = {
    errno.ENOSPC: "fs.inotify.max_user_watches",
    errno.EMFILE: "fs.inotify.max_user_instances",
}
_LISTING_SECONDS = 1.0
_MAX_FOLDERS = 8192
"""How many folders are watched. Each costs the memory of its path; scans find the files in the others."""


class Watch:
    """Watches the inbox and the folder of requests in a thread, until closed.

    Args:
        inbox: The inbox, watched with its subfolders.
        notice: Called for each event of the inbox, in the watch's thread.
        requests: The folder of requests, watched without subfolders.
        requested: Called when something was moved into *requests*, in the watch's thread.

    Raises:
        OSError: A folder cannot be watched.
    """

    def __init__(self, inbox: Path, notice: Notice, requests: Path, requested: Callable[[], None]):
        self._watched = {folder: _identity(folder) for folder in (inbox, requests)}
        self._reader = _Reader()
        try:
            # The path is resolved because no watch follows a symlink.
            _Tree(self._reader, inbox.resolve(), notice)
            _Arrivals(self._reader, requests, requested)
        except OSError:
            # Only the reader's thread closes its descriptors.
            self._reader.start()
            self.close()
            raise
        self._reader.start()

    def alive(self) -> bool:
        """Return whether events still arrive, and the watched folders are still those at their paths."""
        return self._reader.is_alive() and all(
            watched == _identity(folder) for folder, watched in self._watched.items()
        )

    def close(self) -> None:
        """Stop watching, and wait for the thread to end."""
        self._reader.stop()
        self._reader.join()


def reason(error: OSError) -> str:
    """Return why a `Watch` could not begin, and what to do where that is known."""
    limit = _SYSTEM_LIMITS.get(error.errno or 0)
    return f"{error.strerror}{f'; raise {limit}' if limit else ''}"


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return the device and inode of *folder*; None if it cannot be reached."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Reader(InotifyFD):
    """A thread that reads the events and calls back for each.

    If something fails, it logs a warning and ends.
    """

    def run(self) -> None:
        """Read events until stopped; see `InotifyFD.run`."""
        try:
            super().run()
        except Exception as error:
            log.warning("events of the inbox cannot be read any more", reason=repr(error))


class _Arrivals:
    """Calls *arrived* when something was moved into *folder*, or events were lost."""

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


@dataclass(slots=True)
class _Folder:
    """A watched folder."""

    path: str
    """Its path below the top."""
    id: CallbackId
    """The id of its callback."""
    listed: float = 0.0
    """When the folders in it were listed last, by `time.monotonic`."""


class _Tree:
    """Watches *top* and all folders below it, and calls *notice* for each event.

    watchdog's Observer watches subfolders, too, but its InotifyWatchGroup does not fit, as of 7.1: it
    ends with a KeyError when folders take each other's names (docs/known-defects.md), and it delays
    all events by half a second when a file leaves, as a file does at each claim. So this class takes
    the events from watchdog's InotifyFD and keeps the paths itself.
    """

    def __init__(self, reader: InotifyFD, top: Path, notice: Notice) -> None:
        self._reader = reader
        self._top = top
        self._is_full = False
        self._notice = notice
        self._ids = itertools.count()
        self._folders: dict[WatchDescriptor, _Folder] = {}
        """The watched folders.

        A folder that was moved away stays until it is deleted; its events become hints of files that
        do not exist.
        """
        self._watch("")

    def on_event(self, event: InotifyEvent) -> None:
        """See `WatchCallback`."""
        folder = self._folders.get(event.wd)
        if folder is None or not event.name:
            return
        path = os.path.join(folder.path, os.fsdecode(event.name))  # noqa: PTH118 - events are many
        if event.is_directory:
            if event.is_create or event.is_moved_to:
                self._watch(path)
                # The receiver scans the whole folder.
                self._notice(path, None)
        elif event.is_moved_to:
            self._notice(path, Hint.MOVED_IN)
        elif event.is_close_write:
            self._notice(path, Hint.CLOSED)
        elif event.is_modify:
            self._notice(path, Hint.WRITTEN)
        else:
            self._notice(path, Hint.CHANGED)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """See `WatchCallback`."""
        self._folders.pop(wd, None)

    def on_queue_overflow(self) -> None:
        """See `WatchCallback`. The next scan finds the files whose events were lost."""
        for folder in self._folders.values():
            folder.listed = 0.0
        self._watch("")

    def _watch(self, path: str) -> None:
        """Watch the folder *path* and those below it that exist and can be watched.

        Raises:
            OSError: *path* is the top, which cannot be watched.
        """
        paths = [path]
        while paths:
            path = paths.pop()
            if path and (path.count("/") >= MAX_LEVELS or len(self._folders) >= _MAX_FOLDERS):
                # If there are too many folders, the scans find its files. If it is too deep, nothing does.
                continue
            try:
                # Step by step: a folder on the way may become a symlink at any moment.
                fd = open_folder(self._top, path)
                try:
                    folder = self._watch_one(path, fd)
                    if time.monotonic() < folder.listed + _LISTING_SECONDS:
                        # A large folder that is renamed again and again must not be read as often.
                        continue
                    folder.listed = time.monotonic()
                    # A folder that is made after this causes an event.
                    with os.scandir(fd) as entries:
                        folders = (each for each in entries if each.is_dir(follow_symlinks=False))
                        names = [each.name for each in itertools.islice(folders, _MAX_FOLDERS)]
                finally:
                    os.close(fd)
            except OSError:
                if not path:
                    raise
                continue
            paths += [os.path.join(path, name) for name in names]  # noqa: PTH118
        if len(self._folders) >= _MAX_FOLDERS and not self._is_full:
            self._is_full = True
            log.warning("only some folders of the inbox are watched", most=_MAX_FOLDERS)

    def _watch_one(self, path: str, fd: int) -> _Folder:
        # watchdog warns when a folder that is watched already is added again with the same id.
        new_id = CallbackId(next(self._ids))
        wd = _add(self._reader, f"/proc/self/fd/{fd}", _CHANGES, self, new_id)
        folder = self._folders.get(wd)
        if folder is None:
            folder = self._folders[wd] = _Folder(path, new_id)
        else:
            self._reader.remove_callbacks([(wd, folder.id)])
            folder.path, folder.id = path, new_id
        return folder


def _add(
    reader: InotifyFD, folder: str, mask: Mask, callback: _Tree | _Arrivals, id_: CallbackId
) -> WatchDescriptor:
    """Have *reader* call *callback* for the events of *folder* that *mask* names.

    Args:
        reader: The reader.
        folder: The folder.
        mask: The events, and the conditions of the watch.
        callback: What is called, in the reader's thread.
        id_: The id by which the callback can be removed.

    Returns:
        The descriptor of the watch.

    Raises:
        OSError: *folder* cannot be watched.
    """
    wd = reader.add_callback(os.fsencode(folder), mask, callback, id_)
    if wd == -1:
        # InotifyFD returns -1 for a folder that may not be read.
        reader.remove_callbacks([(wd, id_)])
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
    return wd
