"""Move files that are not requests from .fluxdrop/requests/ to .fluxdrop/refused/, which keeps the newest."""

from __future__ import annotations

import os
import secrets
from collections import deque
from contextlib import suppress
from pathlib import Path

from fluxdrop.jobs.job_id import new_job_id

_MAX_KEPT = 100
_MAX_REMOVED_AT_ONCE = 1000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ID_LENGTH = 24


class Refused:
    """The folder *path*, in which the newest 100 entries stay. Owned by the main loop.

    The rest is removed relative to descriptors only, as others may still change what is in their folders.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stuck: set[str] = set()
        """The names of entries that cannot be removed."""

    def take(self, source: Path) -> str:
        """Move *source* into the folder; return its new name. Raises OSError."""
        name = new_job_id()
        self._path.mkdir(mode=0o700, exist_ok=True)
        source.rename(self._path / name)
        return name

    def forget_old(self) -> None:
        """Remove all entries but the newest, up to 1,000 files; the next call removes more. Raises OSError."""
        with suppress(FileNotFoundError):
            folder = os.open(self._path, _FOLDER)
            try:
                self._forget_old(folder)
            finally:
                os.close(folder)

    def _forget_old(self, folder: int) -> None:
        """See `forget_old`; *folder* is the open folder."""
        names = sorted(os.listdir(folder))
        self._stuck.intersection_update(names)
        old = deque(name for name in names[:-_MAX_KEPT] if name not in self._stuck)
        left = _MAX_REMOVED_AT_ONCE
        while old and left > 0:
            name = old.popleft()
            left -= 1
            if _removed(name, folder):
                continue
            try:
                removed, moved, is_all = _empty(name, folder, left)
            except OSError:
                removed, moved, is_all = 0, [], True
            left -= removed
            old.extendleft(moved)
            if is_all and not _removed(name, folder):
                if removed:
                    old.append(name)
                else:
                    self._stuck.add(name)


def _empty(name: str, top: int, max_removed: int) -> tuple[int, list[str], bool]:
    """Remove up to *max_removed* entries of the folder *name* in the open folder *top*.

    Subfolders that are not empty are moved to *top*, so that depth costs nothing.

    Returns:
        How many entries are gone, the new names of those that were moved, and whether all were tried.

    Raises:
        OSError: The folder cannot be read.
    """
    removed = 0
    moved: list[str] = []
    folder = os.open(name, _FOLDER, dir_fd=top)
    try:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number >= max_removed:
                    return removed, moved, False
                if _removed(entry.name, folder):
                    removed += 1
                    continue
                other = f"{name[:_ID_LENGTH]}-{secrets.token_hex(4)}"
                with suppress(OSError):
                    os.rename(entry.name, other, src_dir_fd=folder, dst_dir_fd=top)
                    moved.append(other)
                    removed += 1
    finally:
        os.close(folder)
    return removed, moved, True


def _removed(name: str, folder: int) -> bool:
    """Remove the file or empty folder *name* in the open *folder*; return whether it is gone."""
    for remove in (os.unlink, os.rmdir):
        try:
            remove(name, dir_fd=folder)
        except FileNotFoundError:
            return True
        except OSError:
            continue
        return True
    return False
