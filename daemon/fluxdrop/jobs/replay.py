"""Doing a job again: a new job with the same input and, for a prompt, the recorded parameters."""

from __future__ import annotations

from contextlib import closing
from pathlib import PurePosixPath

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.request import GenerationRequest
from fluxdrop.jobs.job import JobRequest
from fluxdrop.jobs.store import Row, Store
from fluxdrop.jobs.submission import submit_request
from fluxdrop.layout import Root
from fluxdrop.publish.result import Failure, Record, Result, decode


def replay_job(root: Root, job: str) -> tuple[str, str]:
    """Ask the daemon to do *job*, an id or a result's NAME, again; return both jobs' ids.

    Raises FluxdropError when there is no such job, it is not finished, or its files are gone.
    """
    row = _find(root, job)
    path, record = _record(root, row)
    name = PurePosixPath(row.source)
    request = JobRequest(replay_of=row.id)
    # The files lie where the index has the record; what a record says of paths anybody can change.
    if isinstance(record, Failure):
        source = root.path / path.removesuffix(".error.json")
    elif record.generation is not None:
        request = JobRequest(replay_of=row.id, generation=_request(record))
        source = root.path / f"{path.removesuffix('.json')}.txt"
    else:
        source = root.path / f"{path.removesuffix('.json')}.png"
        name = name.with_suffix(".png")
    if not source.is_file():
        raise FluxdropError(f"{source} is gone, so {row.id} cannot be done again", kind="replay")
    return row.id, submit_request(root, request, str(name), source)


def _find(root: Root, job: str) -> Row:
    with closing(Store(root.database, read_only=True)) as store:
        found = store.find(job)
    if len(found) == 1:
        return found[0]
    if not found:
        raise FluxdropError(
            f"There is no job {job}", hint="`fluxdrop status` shows the last ones.", kind="replay"
        )
    several = ", ".join(row.id for row in found)
    raise FluxdropError(f"{job} can mean several jobs: {several}", kind="replay")


def _record(root: Root, row: Row) -> tuple[str, Record]:
    if row.record is None:
        raise FluxdropError(
            f"{row.id} is not finished", hint="Replay it when it is.", kind="replay"
        )
    path = root.path / row.record
    try:
        return row.record, decode(path.read_bytes())
    except OSError as error:
        raise FluxdropError(f"{path} cannot be read: {error.strerror}", kind="replay") from error
    except msgspec.DecodeError as error:
        raise FluxdropError(
            f"{path} is not a result of fluxdrop: {error}", kind="replay"
        ) from error


def _request(record: Result) -> GenerationRequest:
    made = record.generation
    assert made is not None
    return GenerationRequest(
        prompt=made.prompt,
        negative_prompt=made.negative_prompt,
        steps=made.steps,
        guidance_scale=made.guidance_scale,
        seed=made.seed,
        width=made.width,
        height=made.height,
        sampler=made.sampler,
        pipeline=record.generator.model if record.generator else None,
    )
