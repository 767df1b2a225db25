"""Submitting files to the inbox, and waiting for their results."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeVar

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root, holder
from fluxdrop.files.transient import naming, remedy_of
from fluxdrop.generate.infotext import parse_infotext
from fluxdrop.generate.png_info import read_infotext
from fluxdrop.generate.prompt_file import is_divided
from fluxdrop.jobs.input_names import WHAT_TO_DROP, kind_of
from fluxdrop.jobs.side_files import is_side_file
from fluxdrop.jobs.store import Row, Store
from fluxdrop.requests.messages import answer_to, refusal
from fluxdrop.timestamps import now

_POLL_SECONDS = 0.1
_MAX_SLUG = 60


class Submitted(NamedTuple):
    """A file that was submitted."""

    file: str
    """Its path below inbox/."""
    inode: int
    """Its inode, by which the index knows its job."""
    since: str
    """When it was submitted, RFC 3339 without a zone; older jobs with this inode are others."""
    earlier: frozenset[str] = frozenset()
    """The ids of the jobs of that second that had this inode before: the file of an ended job may be gone."""


def submit_file(root: Root, path: Path) -> Submitted:
    """Copy the file *path* into the inbox.

    Raises:
        FluxdropError: It is nothing that the daemon takes, cannot be read, or the inbox cannot be written.
    """
    if kind_of(path.name) is None or is_side_file(path.name):
        raise FluxdropError(
            f"{path} is not a kind of file that fluxdrop takes",
            hint=f"Submit {WHAT_TO_DROP}.",
            kind="unknown",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FluxdropError(f"{path} cannot be read: {error.strerror}") from error
    return _drop(root, path.stem, path.suffix, data)


def submit_prompt(root: Root, text: str) -> Submitted:
    """Write *text* into the inbox as a prompt file named after its first line. Raises FluxdropError."""
    slug = re.sub(r"[^\w]+", "-", text.strip().split("\n")[0]).strip("-").lower()[:_MAX_SLUG]
    return _drop(root, slug.strip("-") or "prompt", ".txt", text.encode())


def submit_regeneration(root: Root, picture: Path) -> Submitted:
    """Write the generation parameters that the PNG *picture* contains into the inbox, as a prompt file of its name.

    Raises:
        FluxdropError: It contains none that can be used, or the inbox cannot be written.
    """
    infotext = read_infotext(picture)
    parse_infotext(infotext)
    if is_divided(infotext):
        raise FluxdropError(
            f"The prompt in {picture} contains a line `---`, which would split it into two prompts",
            hint="Write a prompt file without that line.",
            kind="prompt",
        )
    return _drop(root, picture.stem, ".txt", infotext.encode())


def wait_for(
    root: Root, submitted: Sequence[Submitted], on_wait: Callable[[int], None]
) -> list[Row]:
    """Wait until all jobs of the files *submitted* have ended.

    Args:
        root: The root.
        submitted: The files.
        on_wait: Called about ten times a second with how many jobs are left.

    Returns:
        The jobs; several for a file that asks for several pictures.

    Raises:
        FluxdropError: No daemon serves the root.
    """

    def look(store: Store) -> list[Row | None]:
        rows = [_job_of(store, item) for item in submitted]
        parts = [store.parts(row.id) if row is not None else [] for row in rows]
        return [one for row, others in zip(rows, parts, strict=True) for one in (row, *others)]

    return _wait(root, look, on_wait)


def _job_of(store: Store, item: Submitted) -> Row | None:
    found = store.by_inode(item.inode, item.since)
    return next((row for row in found if row.id not in item.earlier), None)


def wait_for_jobs(root: Root, job_ids: Sequence[str], on_wait: Callable[[int], None]) -> list[Row]:
    """Wait until the jobs *job_ids* have ended; return them. See `wait_for`."""

    def look(store: Store) -> list[Row | None]:
        return [store.get(job_id) for job_id in job_ids]

    return _wait(root, look, on_wait)


def wait_for_replays(
    root: Root, job_ids: Sequence[str], on_wait: Callable[[int], None]
) -> list[Row | FluxdropError]:
    """Wait until the replays *job_ids*, for which requests were made, have ended. See `wait_for`.

    Returns:
        For each its job, or the error with which its request was refused.
    """
    ended: dict[str, Row | FluxdropError] = {}

    def look(store: Store) -> list[Row | FluxdropError | None]:
        for job_id in job_ids:
            if job_id in ended:
                continue
            row = store.get(job_id)
            if row is not None and row.state != "claimed":
                ended[job_id] = row
            elif row is None and (answer := answer_to(root, job_id)) is not None:
                ended[job_id] = refusal(answer)
        return [ended.get(job_id) for job_id in job_ids]

    return _wait(root, look, on_wait)


EndedJob = TypeVar("EndedJob", bound=Row | FluxdropError)


def _wait(
    root: Root, look: Callable[[Store], list[EndedJob | None]], on_wait: Callable[[int], None]
) -> list[EndedJob]:
    """Wait until all jobs that *look* finds in the index have ended. See `wait_for`."""
    while True:
        served = holder(root) is not None
        with closing(Store(root.database, read_only=True)) as store:
            rows = look(store)
        ended = [row for row in rows if row is not None and not _is_in_hand(row)]
        if len(ended) == len(rows):
            return ended
        if not served:
            raise FluxdropError(
                f"No daemon serves {root.path}, so there is nothing to wait for",
                hint="What was submitted stays in the inbox. Start one with: fluxdrop run",
                kind="not-running",
            )
        on_wait(len(rows) - len(ended))
        time.sleep(_POLL_SECONDS)


def _is_in_hand(row: Row | FluxdropError) -> bool:
    """Return whether *row* is a job that has not ended."""
    return isinstance(row, Row) and row.state == "claimed"


def _drop(root: Root, stem: str, suffix: str, data: bytes) -> Submitted:
    """Write *data* to a new file of the inbox, durably; its name is free. Raises FluxdropError."""
    since = now()
    # The daemon ignores dot files, so it sees the whole file or none.
    unfinished = root.inbox / f".{secrets.token_hex(8)}.part"
    try:
        with naming(root.inbox), unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            inode = os.fstat(file.fileno()).st_ino
        earlier = _jobs_of_inode(root, inode, since[:19])
        name = _rename_to_free(root, unfinished, stem, suffix)
        durable.sync_folder(root.inbox)
    except OSError as error:
        raise _unwritten(error) from error
    finally:
        # A disk that takes no new file may refuse this too; its first error says more.
        with contextlib.suppress(OSError):
            unfinished.unlink()
    return Submitted(name, inode, since[:19], earlier)


def _jobs_of_inode(root: Root, inode: int, since: str) -> frozenset[str]:
    """Return the ids of the jobs whose input had *inode*; none if the index cannot be read."""
    try:
        with closing(Store(root.database, read_only=True)) as store:
            return frozenset(row.id for row in store.by_inode(inode, since))
    except FluxdropError:
        return frozenset()


def _unwritten(error: OSError) -> FluxdropError:
    """Return *error*, with which a file could not be written, for people."""
    message = f"{error.filename} cannot be written: {error.strerror}"
    return FluxdropError(message, hint=remedy_of(error), kind="disk")


def _rename_to_free(root: Root, unfinished: Path, stem: str, suffix: str) -> str:
    """Rename *unfinished* to a free name in the inbox, and return that name. Raises OSError."""
    for number in itertools.count(1):
        name = f"{stem}-{number}{suffix}" if number > 1 else f"{stem}{suffix}"
        target = root.inbox / name
        with contextlib.suppress(FileExistsError):
            try:
                os.link(unfinished, target)
            except FileExistsError:
                raise
            except OSError:
                # Without links, an empty file reserves the name; the daemon waits while it is empty.
                target.touch(exist_ok=False)
                unfinished.rename(target)
            return name
    raise AssertionError("unreachable: the numbers do not end")
