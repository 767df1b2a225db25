"""A prompt file that asks for several pictures becomes as many jobs, each with one result.

The job of the file becomes that of the first picture. The folders of the others are made inside its
own; then its request.json says that it is the first part, which decides it; then they move out, by
one rename each. After a kill anywhere in between, doing it again ends in the same jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from fluxdrop import durable
from fluxdrop.generate.request import GenerationRequest
from fluxdrop.jobs.job import REQUEST, Job, JobRequest, Part, decode_request
from fluxdrop.jobs.regular import open_regular

_PARTS = "parts"


def divide(
    job: Job, requests: Sequence[GenerationRequest], new: list[Path] | None = None
) -> list[Path]:
    """Have *job* make the first of *requests* and new jobs the others, if that was not decided yet;
    return the folders of the jobs that are new since it was last called. They are added to *new*, which so has them
    all when a call that an OSError ended is made again.

    Their ids are the job's with -2, -3, ...
    """
    new = [] if new is None else new
    parts = job.folder / _PARTS
    if job.request.part is None:
        durable.remove_tree(parts)
        parts.mkdir()
        with open_regular(job.input, "prompt") as reader:
            data = reader.read()
        written = []
        for number, request in enumerate(requests[1:], 2):
            folder = parts / f"{job.id}-{number}"
            copy = folder / job.input.relative_to(job.folder)
            copy.parent.mkdir(parents=True)
            durable.put(copy, data)
            durable.put(folder / REQUEST, _request(job, request, number, len(requests)))
            written += [copy, folder / REQUEST]
        folders = {parent for file in written for parent in file.parents if parts in parent.parents}
        durable.sync_all(written, [*folders, parts])
        first = _request(job, requests[0], 1, len(requests))
        durable.write(job.folder / REQUEST, first)
        job.request = decode_request(first)
    if not parts.is_dir():
        return new
    work = job.folder.parent
    for part in sorted(parts.iterdir()):
        new.append(part.rename(work / part.name))
    durable.sync_folder(work)
    durable.remove_tree(parts)
    return new


def _request(job: Job, request: GenerationRequest, number: int, of: int) -> bytes:
    part = Part(number=number, of=of, first=job.id)
    return msgspec.json.encode(
        JobRequest(replay_of=job.request.replay_of, generation=request, part=part)
    )
