"""Names in the inbox that a power cut brought back, of files that were published."""

from __future__ import annotations

from datetime import datetime
from pathlib import PurePosixPath

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.jobs.claim import remove_name
from fluxdrop.jobs.store import Row, Store
from fluxdrop.logs import get_logger
from fluxdrop.records.job_files import published_input

log = get_logger("fluxdrop.daemon")

_MAX_JOBS = 1000
_MAX_PUBLISHING_SECONDS = 15.0
"""How long after its record was made a job's names may be given. Later ones are not the daemon's."""


def remove_published_names(root: Root, store: Store) -> None:
    """Take away the names that inputs of the last finished jobs still have in the inbox.

    btrfs has brought such a name back beside the published one although its folder was synced after
    the claim. The file would be done again. Only a name that is the job's own source, of the very
    file that is published, and that nobody renamed since, is taken away. It is moved to
    .fluxdrop/refused/, as strangers may remove the published name.

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
    if published.st_ctime > _seconds(row.finished) + _MAX_PUBLISHING_SECONDS:
        # Somebody has given it a name since, for example to have it done again.
        return
    if remove_name(root.inbox, PurePosixPath(row.source), published, kept=root.refused / row.id):
        log.warning("taken from the inbox, as it is published", job=row.id, file=row.source)


def _seconds(finished: str | None) -> float:
    return datetime.fromisoformat(finished).timestamp() if finished else 0.0
