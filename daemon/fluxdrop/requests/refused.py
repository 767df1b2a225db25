"""What lay in .fluxdrop/requests/ and is no request, kept in .fluxdrop/refused/ for a while."""

from __future__ import annotations

import os
import secrets
from collections import deque
from contextlib import suppress
from pathlib import Path

from fluxdrop.jobs.job_id import new_job_id

_MOST_KEPT = 100
_MOST_REMOVED_AT_ONCE = 1000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LENGTH_OF_ID = 24


class Refused:
    """The folder *path*, of which the newest 100 things stay. What others put there is removed by descriptors
    alone, as they may still have a hand in it. Owned by the main loop.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stuck: set[str] = set()
        """The names of what cannot be removed."""

    def take(self, source: Path) -> str:
        """Move *source* there; return the name that it has there. Raises OSError."""
        name = new_job_id()
        self._path.mkdir(mode=0o700, exist_ok=True)
        source.rename(self._path / name)
        return name

    def forget_old(self) -> None:
        """Remove all but the newest, as far as so many steps go; the next call does the rest."""
        with suppress(FileNotFoundError):
            folder = os.open(self._path, _FOLDER)
            try:
                self._forget_old(folder)
            finally:
                os.close(folder)

    def _forget_old(self, folder: int) -> None:
        names = sorted(os.listdir(folder))
        self._stuck.intersection_update(names)
        old = deque(name for name in names[:-_MOST_KEPT] if name not in self._stuck)
        left = _MOST_REMOVED_AT_ONCE
        while old and left > 0:
            name = old.popleft()
            left -= 1
            if _removed(name, folder):
                continue
            try:
                removed, lifted, is_all = _empty(name, folder, left)
            except OSError:
                removed, lifted, is_all = 0, [], True
            left -= removed
            old.extendleft(lifted)
            if is_all and not _removed(name, folder):
                if removed:
                    old.append(name)
                else:
                    self._stuck.add(name)


def _empty(name: str, top: int, most: int) -> tuple[int, list[str], bool]:
    """Remove up to *most* of what is in the folder *name* of the open folder *top*. Its subfolders that are not
    empty are moved up beside it, so that depth costs nothing.

    Returns how many went, the names of those that were moved up, and whether all were tried. Raises OSError.
    """
    removed = 0
    lifted: list[str] = []
    folder = os.open(name, _FOLDER, dir_fd=top)
    try:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number >= most:
                    return removed, lifted, False
                if _removed(entry.name, folder):
                    removed += 1
                    continue
                other = f"{name[:_LENGTH_OF_ID]}-{secrets.token_hex(4)}"
                with suppress(OSError):
                    os.rename(entry.name, other, src_dir_fd=folder, dst_dir_fd=top)
                    lifted.append(other)
                    removed += 1
    finally:
        os.close(folder)
    return removed, lifted, True


def _removed(name: str, folder: int) -> bool:
    """Remove the file or empty folder *name* in the open *folder*, if that can be."""
    for remove in (os.unlink, os.rmdir):
        try:
            remove(name, dir_fd=folder)
        except FileNotFoundError:
            return True
        except OSError:
            continue
        return True
    return False
