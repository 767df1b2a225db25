"""A pool of emptied folders of ended jobs, for new jobs to use.

Renaming a folder costs a third of creating and removing one. Folders are kept only on filesystems that
keep the order of renames: on btrfs, a power cut can keep only the later of two. If an input nevertheless
ends up in a folder in spares/, its name contains its job's id (`fluxdrop.jobs.claim`), and the next start
moves it back.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from pathlib import Path

from fluxdrop import failpoints
from fluxdrop.files import durable
from fluxdrop.files.filesystem import filesystem_of
from fluxdrop.logs import get_logger

log = get_logger("fluxdrop.daemon")

_MAX_SPARES = 256
_ORDERED_FILESYSTEMS = ("ext4", "xfs")


def spares_limit(folder: Path) -> int:
    """Return how many folders may be kept on the filesystem of *folder*."""
    return _MAX_SPARES if filesystem_of(folder) in _ORDERED_FILESYSTEMS else 0


class FolderPool:
    """At most *max_spares* empty folders in *folder*.

    One thread calls `discard` and `settle`; any thread may call `reuse_folder`.
    """

    def __init__(self, folder: Path, max_spares: int) -> None:
        self._folder = folder
        self._max_spares = max_spares
        self._free: deque[Path] = deque()
        self._emptied: list[Path] = []
        """Folders whose emptying is not synced: after a power cut they could hold their old files."""

    def reuse_folder(self, folder: Path) -> bool:
        """Rename one of the folders to *folder*; return False if there is none. Raise OSError."""
        with suppress(IndexError, FileNotFoundError):
            os.rename(self._free.pop(), folder)  # noqa: PTH104 - hot path
            return True
        return False

    def discard(self, folder: Path) -> None:
        """Empty *folder* and move it to the pool, or remove it if the pool is full. Raise OSError."""
        try:
            for name in os.listdir(folder):  # noqa: PTH208 - hot path
                os.unlink(f"{folder}/{name}")  # noqa: PTH108
        except (IsADirectoryError, PermissionError):
            # There is a folder in it: Linux raises IsADirectoryError, POSIX has PermissionError.
            durable.remove_tree(folder)
            return
        failpoints.reach("job-emptied")
        if len(self._emptied) + len(self._free) < self._max_spares:
            self._emptied.append(self._keep(folder))
        else:
            folder.rmdir()

    def _keep(self, folder: Path) -> Path:
        """Move *folder* to the pool's own; return its new path. Raise OSError."""
        spare = self._folder / folder.name
        try:
            os.rename(folder, spare)  # noqa: PTH104 - hot path
        except FileNotFoundError:
            self._folder.mkdir(exist_ok=True)
            folder.rename(spare)
        return spare

    def settle(self) -> None:
        """Let `reuse_folder` use the folders discarded so far. Call it once their emptying is on the disk."""
        self._free.extend(self._emptied)
        self._emptied.clear()
