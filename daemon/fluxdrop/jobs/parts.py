"""A prompt file that asks for several pictures becomes as many jobs, each with one result.

The job of the file becomes that of the first picture. The folders of the others are made beside its
own and are no jobs yet; its request.json, which says that it is the first part, decides it. No
folder is ever moved: what a power cut keeps of that is not the same on every filesystem.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from fluxdrop import failpoints
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.regular import chunks, open_regular
from fluxdrop.generate.request import GenerationRequest
from fluxdrop.jobs.claim import make_place, read_claim
from fluxdrop.jobs.job import REQUEST, Job, Part, decode_request, open_job


def divide(
    job: Job,
    requests: Sequence[GenerationRequest],
    announce: Callable[[list[Path]], None],
    most_bytes: int = sys.maxsize,
) -> None:
    """Have *job* make the first of *requests*, and new jobs the others, whose folders *announce* is
    told; nothing if *job* is a part already.

    No more than *most_bytes* of the file are copied: what has more fails. Their ids are the job's with
    -2, -3, ... After an error of *announce* or of the disk it may be called again.
    """
    if job.request.part is not None:
        return
    folders = [job.folder.with_name(f"{job.id}-{number}") for number in range(2, len(requests) + 1)]
    if not _is_divided(job.folder):
        try:
            _make(job, requests, folders, most_bytes)
        except OSError:
            with suppress(OSError):
                _remove(folders)
            raise
        failpoints.reach("generation-divided")
    data = _request(job, requests[0], 1, len(requests))
    durable.write(job.folder / REQUEST, data)
    announce(folders)
    job.request = decode_request(data)


def without_undecided(folders: Sequence[Path]) -> list[Path]:
    """Those of *folders*, which are all in work/, that are jobs. What was made of others, for files
    whose division was cut off before it was decided, is removed.
    """
    undecided = [folder for folder in folders if _is_undecided(folder)]
    _remove(undecided)
    return [folder for folder in folders if folder not in undecided]


def _make(
    job: Job, requests: Sequence[GenerationRequest], folders: Sequence[Path], most_bytes: int
) -> None:
    _remove(folders)
    claim = read_claim(job.folder)
    if claim is None:
        raise FluxdropError(f"{job.name} is gone", kind="prompt")
    with open_regular(job.input, "prompt") as reader:
        data = b"".join(chunks(reader, most_bytes, job.name, 1 << 16))
    written = []
    for number, folder in enumerate(folders, 2):
        copy = make_place(folder, str(claim.source))
        durable.put(copy, data)
        request = _request(job, requests[number - 1], number, len(requests))
        durable.put(folder / REQUEST, request)
        written += [copy, folder / REQUEST]
    work = job.folder.parent
    durable.sync_all(written, [*folders, work])


def _remove(folders: Sequence[Path]) -> None:
    for folder in folders:
        durable.remove_tree(folder)


def _is_undecided(folder: Path) -> bool:
    """Whether *folder* was made for a part of a job that is not divided yet."""
    # A job's id has one dash, and that of a part two.
    first = folder.name.rpartition("-")[0]
    return "-" in first and not _is_divided(folder.with_name(first))


def _is_divided(folder: Path) -> bool:
    """Whether the job in *folder* is the first part of several, or there is none any more."""
    try:
        job = open_job(folder)
    except FluxdropError:
        return True
    return job is None or job.request.part is not None


def _request(job: Job, request: GenerationRequest, number: int, of: int) -> bytes:
    part = Part(number=number, of=of, first=job.id)
    return msgspec.json.encode(msgspec.structs.replace(job.request, generation=request, part=part))
