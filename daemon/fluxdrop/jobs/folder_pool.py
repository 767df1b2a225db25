"""Folders of ended jobs, emptied, which new jobs get: renaming one costs a fraction of making and removing one.

Only where the filesystem keeps renames in their order: of two, a power cut on btrfs can keep the later one alone. An
input that lies in the folder of an ended job after all, in spares/, tells its job (`fluxdrop.intake.claim`), and the
next start takes it back from there.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from contextlib import suppress
from pathlib import Path

from fluxdrop import durable, faults
from fluxdrop.intake.claim import discard_unclaimed, job_of, make_place, new_job_id, read_claim
from fluxdrop.intake.filesystem import filesystem_of
from fluxdrop.jobs.job import printable
from fluxdrop.jobs.record import is_published
from fluxdrop.jobs.store import Store
from fluxdrop.layout import Root
from fluxdrop.logs import get_logger
from fluxdrop.passing import is_passing

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
        faults.point("job-emptied")
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


def take_back_spares(root: Root, store: Store) -> None:
    """Move each input that a power cut left in *root*'s spares/ to work/, durably, and remove the rest; what is no
    such folder is left alone. Raises OSError; it may be called again then.
    """
    if not root.spares.is_dir():
        return
    for spare in root.spares.iterdir():
        try:
            if spare.is_symlink() or not spare.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(spare))
            _take_back(root, store, spare)
        except OSError as error:
            if is_passing(error):
                raise
            # No fluxdrop put it there.
            log.warning("left alone", path=printable(str(spare)), reason=error.strerror)
    with suppress(OSError):
        root.spares.rmdir()


def _take_back(root: Root, store: Store, spare: Path) -> None:
    claim = read_claim(spare)
    job = job_of(claim) if claim else None
    if claim is None:
        discard_unclaimed(spare, root.refused)
    elif job is not None and job != spare.name:
        spare.rename(root.work / job)
        durable.sync_folder(root.work)
        return
    elif job is None and not _has_ended(root, store, spare.name, claim.input):
        # An older fluxdrop did not tell the job.
        target = make_place(root.work / new_job_id(), str(claim.source))
        claim.input.rename(target)
        durable.sync_folder(target.parent)
        durable.sync_folder(root.work)
    durable.remove_tree(spare)


def _has_ended(root: Root, store: Store, job_id: str, path: Path) -> bool:
    row = store.get(job_id)
    return row is not None and is_published(root, row, path)
