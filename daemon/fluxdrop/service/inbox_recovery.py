"""Names in the inbox that a power cut brought back, of files that were published."""

from __future__ import annotations

from pathlib import PurePosixPath

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.jobs.claim import remove_name
from fluxdrop.jobs.store import Row, Store
from fluxdrop.logs import get_logger
from fluxdrop.records.job_files import published_input

log = get_logger("fluxdrop.daemon")

_MAX_JOBS = 1000


def remove_published_names(root: Root, store: Store) -> None:
    """Remove the names that inputs of the last finished jobs still have in the inbox.

    btrfs has brought such a name back beside the published one although its folder was synced after
    the claim. The file would be done again. Only a name that is the job's own source, of the very
    file that is published, is removed; the file itself stays where it was published.

    Raises:
        OSError: The disk failed.
    """
    for row in (*store.latest("done", _MAX_JOBS), *store.latest("failed", _MAX_JOBS)):
        if _is_in_inbox(root, row):
            _remove(root, row)


def _is_in_inbox(root: Root, row: Row) -> bool:
    try:
        return (root.inbox / row.source).lstat().st_ino == row.inode
    except OSError:
        return False


def _remove(root: Root, row: Row) -> None:
    try:
        published = published_input(root, row)
    except FluxdropError:
        return
    if remove_name(root.inbox, PurePosixPath(row.source), published):
        log.warning("removed from the inbox, as it is published", job=row.id, file=row.source)
