"""Folders of ended jobs, emptied, which new jobs get: renaming one costs a fraction of making and removing one.

Only where the filesystem keeps renames in their order: of two, a power cut on btrfs can keep the later one alone. An
input that lies in the folder of an ended job after all, in spares/, tells its job (`fluxdrop.jobs.claim`), and the
next start takes it back from there.
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

_MOST = 256
_ORDERED = ("ext4", "xfs")


def most_spares(folder: Path) -> int:
    """How many folders may be kept in *folder*."""
    return _MOST if filesystem_of(folder) in _ORDERED else 0


class FolderPool:
    """Empty folders in *folder*, at *most* so many. One thread discards and settles; `give` may be called from any."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._free: deque[Path] = deque()
        self._emptied: list[Path] = []
        """What a power cut could fill again with the files of the job before."""

    def give(self, folder: Path) -> bool:
        """Make one of these the new *folder*; False where there is none. Raises OSError."""
        with suppress(IndexError, FileNotFoundError):
            self._free.pop().rename(folder)
            return True
        return False

    def discard(self, folder: Path) -> None:
        """Empty *folder* and take it away. Raises OSError."""
        try:
            for name in os.listdir(folder):  # noqa: PTH208 - hot path
                os.unlink(f"{folder}/{name}")  # noqa: PTH108
        except (IsADirectoryError, PermissionError):
            # POSIX has the second for a folder, too.
            durable.remove_tree(folder)
            return
        failpoints.reach("job-emptied")
        if len(self._emptied) + len(self._free) < self._most:
            spare = self._folder / folder.name
            self._folder.mkdir(exist_ok=True)
            folder.rename(spare)
            self._emptied.append(spare)
        else:
            folder.rmdir()

    def settle(self) -> None:
        """All that was discarded is so on the disk too."""
        self._free.extend(self._emptied)
        self._emptied.clear()
