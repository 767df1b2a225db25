"""Dividing a prompt file that asks for several pictures into as many jobs, each with one result.

The job of the file becomes that of the first picture. The folders of the others are made beside its own and are no
jobs until its options.json says that it is the first part. No folder is ever moved: what a power cut keeps of a
move is not the same on every filesystem.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from fluxdrop import failpoints
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.regular import chunks, open_regular
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.jobs.claim import SOURCE, Claim, NewJob, make_place, place, read_claim
from fluxdrop.jobs.job import OPTIONS, Job, JobOptions, Part, open_job


def divide(
    job: Job, pictures: Sequence[PromptParameters], max_bytes: int = sys.maxsize
) -> list[NewJob]:
    """Make *job* the first part of its prompt file, and make new jobs of the other parts.

    It may be called again after an OSError. Runs on the thread that has *job* in hand.

    Args:
        job: The job of the file. Its `options` are changed, in its folder and in memory.
        pictures: The parameters of each picture that the file asks for.
        max_bytes: The largest file that is copied.

    Returns:
        The new jobs, whose ids are that of *job* with -2, -3, ...; none if *job* is a part already.

    Raises:
        FluxdropError: The file is gone, cannot be read or has more than *max_bytes* bytes.
        OSError: The disk is full or not available.
    """
    if job.options.part is not None:
        return []
    claim = read_claim(job.folder)
    if claim is None:
        raise FluxdropError(f"{job.name} is gone", kind="prompt")
    parts = [_part(job, claim, number) for number in range(2, len(pictures) + 1)]
    if not _is_divided(job.folder, claim):
        try:
            _make(job, parts, pictures, max_bytes)
        except OSError:
            with suppress(OSError):
                _remove([part.folder for part in parts])
            raise
        failpoints.reach("generation-divided")
    options = _options(job, pictures, 1)
    durable.write(job.folder / OPTIONS, msgspec.json.encode(options))
    job.options = options
    return parts


def remove_if_undecided(folder: Path) -> bool:
    """Remove *folder* if it was made for a file whose division was cut off; return whether it was.

    It is a folder in work/.
    """
    # A job's id has one dash, and that of a part two.
    first = folder.name.rpartition("-")[0]
    if "-" not in first or _is_divided(folder.with_name(first)):
        return False
    durable.remove_tree(folder)
    return True


def _part(job: Job, claim: Claim, number: int) -> NewJob:
    """Return the job of the part *number* of *job*, whose *claim* is given, as `_make` makes it."""
    folder = job.folder.with_name(f"{job.id}-{number}")
    others = {OPTIONS} | (claim.others & {SOURCE})
    source = claim.source
    return NewJob(folder, Claim(source, place(folder, str(source)), frozenset(others)))


def _make(
    job: Job, parts: Sequence[NewJob], pictures: Sequence[PromptParameters], max_bytes: int
) -> None:
    """Make the folders of *parts*, durably; what lies there already is removed first."""
    folders = [part.folder for part in parts]
    _remove(folders)
    with open_regular(job.input, "prompt") as reader:
        data = b"".join(chunks(reader, max_bytes, job.name, 1 << 16))
    written = []
    for number, (folder, claim, _state) in enumerate(parts, 2):
        assert claim is not None
        copy = make_place(folder, str(claim.source))
        durable.put(copy, data)
        durable.put(folder / OPTIONS, msgspec.json.encode(_options(job, pictures, number)))
        written += [copy, folder / OPTIONS]
    durable.sync_all(written, [*folders, job.folder.parent])


def _remove(folders: Sequence[Path]) -> None:
    for folder in folders:
        durable.remove_tree(folder)


def _is_divided(folder: Path, claim: Claim | None = None) -> bool:
    """Return whether the job in *folder* is the first of several parts, or is gone.

    Its *claim* is read from the folder if it is not given.
    """
    try:
        job = open_job(folder, claim)
    except FluxdropError:
        return True
    return job is None or job.options.part is not None


def _options(job: Job, pictures: Sequence[PromptParameters], number: int) -> JobOptions:
    """Return the options of the part *number* of *job*."""
    part = Part(number=number, of=len(pictures), first=job.id)
    return msgspec.structs.replace(job.options, generation=pictures[number - 1], part=part)
