"""What an older fluxdrop left in .fluxdrop/spares/: folders of ended jobs that it used for new ones.

A power cut on btrfs could keep the rename of a new input into such a folder, and lose the earlier one
of the folder to work/.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from fluxdrop import durable
from fluxdrop.intake.claim import discard_unclaimed, make_place, new_job_id, read_claim
from fluxdrop.jobs.job import printable
from fluxdrop.jobs.record import is_published
from fluxdrop.jobs.store import Store
from fluxdrop.layout import Root
from fluxdrop.logs import get_logger
from fluxdrop.passing import is_passing

log = get_logger("fluxdrop.daemon")


def take_back_spares(root: Root, store: Store) -> None:
    """Move each input that was not published from *root*'s spares/ to work/, durably, as a new claim, and
    remove the rest; what is no such folder is left alone. Raises OSError; it may be called again then.
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
    row = store.get(spare.name)
    if claim is None:
        discard_unclaimed(spare, root.refused)
    elif row is None or not is_published(root, row, claim.input):
        target = make_place(root.work / new_job_id(), str(claim.source))
        claim.input.rename(target)
        durable.sync_folder(target.parent)
        durable.sync_folder(root.work)
    durable.remove_tree(spare)
