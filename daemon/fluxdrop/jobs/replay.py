"""Doing a job again: a new job with the same input and, for a prompt, the recorded parameters."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.request import GenerationRequest
from fluxdrop.jobs.job import JobRequest
from fluxdrop.jobs.record import files_of, read_record
from fluxdrop.jobs.store import Row
from fluxdrop.jobs.submission import submit_request
from fluxdrop.layout import Root
from fluxdrop.publish.result import Failure, Record, Result

Start = Literal["generate", "preprocess", "predict"]
"""With which stage a replay begins: with the input that was dropped, with the recorded picture, or
with the recorded tensor."""


class Replay(NamedTuple):
    """All that a replay needs; nothing is asked for yet."""

    row: Row
    """The job that is to be done again."""
    record: Record
    request: JobRequest
    name: str
    """The new job's input, a path below inbox/, with the contents of *source*."""
    source: Path
    tensor: Path | None


def plan_replay(
    root: Root, row: Row, *, start: Start = "generate", model: str | None = None
) -> Replay:
    """Find what it takes to do *row* again from *start* on, with *model* instead of the one in use.

    Raises FluxdropError when it is not finished, or what it takes is gone or never was.
    """
    record = read_record(root, row)
    assert row.record is not None
    files = files_of(root, row.record, record)
    name = PurePosixPath(row.source)
    source = files["input"]
    tensor = None
    if isinstance(record, Failure):
        _refuse_later_start(row, record, start)
    elif start != "generate":
        source = files["image"]
        name = name.with_suffix(".png")
        tensor = files["tensor"] if start == "predict" else None
    missing = [path for path in (source, tensor) if path is not None and not path.is_file()]
    if missing:
        raise FluxdropError(
            f"{missing[0]} is gone, so {row.id} cannot be done again", kind="replay"
        )
    made = isinstance(record, Result) and record.generation is not None and start == "generate"
    request = JobRequest(
        replay_of=row.id,
        generation=_generation(record) if isinstance(record, Result) and made else None,
        model=model,
        has_tensor=tensor is not None,
        part=record.part if start == "generate" else None,
    )
    return Replay(row, record, request, str(name), source, tensor)


def request_replay(root: Root, replay: Replay) -> str:
    """Hand *replay* to the daemon, now or at its next start; return the new job's id."""
    return submit_request(root, replay.request, replay.name, replay.source, replay.tensor)


def _refuse_later_start(row: Row, failure: Failure, start: Start) -> None:
    if start == "predict" or (start == "preprocess" and failure.source.kind == "prompt"):
        what = "tensor" if start == "predict" else "picture"
        raise FluxdropError(
            f"{row.id} failed and has no {what} to begin with",
            hint="Replay it without --from.",
            kind="replay",
        )


def _generation(record: Result) -> GenerationRequest:
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
        pipeline=record.generator.name if record.generator else None,
    )
