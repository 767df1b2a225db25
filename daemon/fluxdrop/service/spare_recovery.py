"""Recover inputs that a power cut brought back in spare job folders (`fluxdrop.jobs.folder_pool`)."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.files.transient import is_transient
from fluxdrop.jobs.claim import discard_unclaimed, job_of, make_place, read_claim
from fluxdrop.jobs.job_id import new_job_id
from fluxdrop.jobs.store import Store
from fluxdrop.logs import get_logger
from fluxdrop.printable import printable
from fluxdrop.records.job_files import is_published

log = get_logger("fluxdrop.daemon")


def recover_spares(root: Root, store: Store) -> None:
    """Move each input in spares/ back to work/, durably, and remove the spare folders.

    A job's folder becomes a spare when it is empty; after a power cut it may contain an input again.
    An entry of spares/ that is not a folder is left alone. May be called again after an error.

    Args:
        root: The root whose spares/ is searched.
        store: The index, which tells which jobs have ended.

    Raises:
        OSError: The disk is full or not available.
    """
    if not root.spares.is_dir():
        return
    for spare in root.spares.iterdir():
        try:
            if spare.is_symlink() or not spare.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(spare))
            _recover_spare(root, store, spare)
        except OSError as error:
            if is_transient(error):
                raise
            # fluxdrop did not put it there.
            log.warning("left alone", path=printable(str(spare)), reason=error.strerror)
    with suppress(OSError):
        root.spares.rmdir()


def _recover_spare(root: Root, store: Store, spare: Path) -> None:
    claim = read_claim(spare)
    job = job_of(claim) if claim else None
    if claim is None:
        discard_unclaimed(spare, root.refused)
    elif job is not None and job != spare.name:
        spare.rename(root.work / job)
        durable.sync_folder(root.work)
        return
    elif job is None and not _has_ended(root, store, spare.name, claim.input):
        # An older fluxdrop did not write the job's id into the input's name.
        target = make_place(root.work / new_job_id(), str(claim.source))
        claim.input.rename(target)
        durable.sync_folder(target.parent)
        durable.sync_folder(root.work)
    durable.remove_tree(spare)


def _has_ended(root: Root, store: Store, job_id: str, path: Path) -> bool:
    row = store.get(job_id)
    return row is not None and is_published(root, row, path)
