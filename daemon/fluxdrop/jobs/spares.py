"""What an older fluxdrop left in .fluxdrop/spares/: folders of ended jobs that it used for new ones.

A power cut on btrfs could keep the rename of a new input into such a folder, and lose the earlier one
of the folder to work/.
"""

from __future__ import annotations

from pathlib import Path

from fluxdrop import durable
from fluxdrop.errors import FluxdropError
from fluxdrop.intake.claim import discard_unclaimed, make_place, new_job_id, read_claim
from fluxdrop.jobs.job import file_sha256
from fluxdrop.jobs.record import files_of, read_record
from fluxdrop.jobs.store import Store
from fluxdrop.layout import Root


def take_back_spares(root: Root, store: Store) -> None:
    """Move each input that was not published from *root*'s spares/ to work/, durably, as a new claim, and
    remove the rest. Raises OSError; it may be called again then.
    """
    if not root.spares.is_dir():
        return
    for spare in root.spares.iterdir():
        claim = read_claim(spare)
        if claim is None:
            discard_unclaimed(spare, root.refused)
        elif not _is_published(root, store, spare.name, claim.input):
            target = make_place(root.work / new_job_id(), str(claim.source))
            claim.input.rename(target)
            durable.sync_folder(target.parent)
            durable.sync_folder(root.work)
        durable.remove_tree(spare)
    durable.remove_tree(root.spares)


def _is_published(root: Root, store: Store, job_id: str, path: Path) -> bool:
    """Whether the file *path* is the input of the job *job_id*, and that has its result."""
    row = store.get(job_id)
    if row is None or row.record is None:
        return False
    try:
        record = read_record(root, row)
        # Of what is not taken there is no digest in the record.
        published = files_of(root, row.record, record)["input"]
        return file_sha256(path) == (record.source.sha256 or file_sha256(published))
    except (FluxdropError, FileNotFoundError):
        return False
