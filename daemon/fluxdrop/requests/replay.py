"""Doing a job again: a new job with the same input and, for a prompt, the recorded parameters."""

from __future__ import annotations

import errno
import stat
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.files.regular import is_its_own, open_in_root
from fluxdrop.generate.request import GenerationRequest
from fluxdrop.jobs.claim import is_below_inbox, make_place
from fluxdrop.jobs.job import REQUEST, TENSOR, JobRequest
from fluxdrop.jobs.store import Row
from fluxdrop.records.job_files import files_of, read_record
from fluxdrop.records.result import Failure, Record, Result
from fluxdrop.requests.messages import ReplayRequest, Start, ask

_CHUNK = 1 << 20
_MOST_TENSOR_BYTES = 256 * 1024**2


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
    start: Start


def plan_replay(
    root: Root, row: Row, *, start: Start = "generate", model: str | None = None
) -> Replay:
    """Find what it takes to do *row* again from *start* on, with *model* instead of the one in use.

    Raises FluxdropError when it is not finished, or what it takes is gone or never was.
    """
    name = PurePosixPath(row.source)
    # Anybody may have written the record from which the index has it.
    if not is_below_inbox(name):
        raise FluxdropError(f"{row.source} is not the path of a file below inbox/", kind="request")
    record = read_record(root, row)
    assert row.record is not None
    files = files_of(root, row.record, record)
    source = files["input"]
    tensor = None
    if isinstance(record, Failure):
        _refuse_later_start(row, record, start)
    elif start != "generate":
        source = files["image"]
        name = name.with_suffix(".png")
        tensor = files["tensor"] if start == "predict" else None
    for path in filter(None, (source, tensor)):
        _refuse_missing(row, path)
    made = isinstance(record, Result) and record.generation is not None and start == "generate"
    request = JobRequest(
        replay_of=row.id,
        generation=_generation(record) if isinstance(record, Result) and made else None,
        model=model,
        has_tensor=tensor is not None,
        part=record.part if start == "generate" else None,
    )
    return Replay(row, record, request, str(name), source, tensor, start)


def build_replay(root: Root, replay: Replay, folder: Path, most_bytes: int) -> list[Path]:
    """Make *folder* that of the new job, of copies; the files in it, none of them synced.

    Raises FluxdropError when what it takes is gone, no regular file or larger than *most_bytes*,
    OSError for a disk in trouble.
    """
    target = make_place(folder, replay.name)
    _copy(root, replay.source, target, most_bytes)
    files = [target]
    if replay.tensor is not None:
        _copy(root, replay.tensor, folder / TENSOR, max(most_bytes, _MOST_TENSOR_BYTES))
        files.append(folder / TENSOR)
    durable.put(folder / REQUEST, msgspec.json.encode(replay.request))
    return [*files, folder / REQUEST]


def _copy(root: Root, source: Path, target: Path, most_bytes: int) -> None:
    with open_in_root(root.path, source, "replay") as reader, target.open("xb") as writer:
        left = most_bytes + 1
        while data := reader.read(min(left, _CHUNK)):
            writer.write(data)
            left -= len(data)
    if not left:
        raise FluxdropError(
            f"{source} is larger than the {most_bytes:,} bytes of max_file_bytes", kind="replay"
        )


def request_replay(root: Root, replay: Replay) -> str:
    """Ask the daemon for *replay*, now or at its next start; return the new job's id."""
    return ask(root, ReplayRequest(replay.row.id, replay.start, replay.request.model))


def _refuse_missing(row: Row, path: Path) -> None:
    try:
        what = "" if stat.S_ISREG(path.lstat().st_mode) else "is not a regular file"
    except OSError as error:
        if not is_its_own(error):
            raise
        is_gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
        what = "is gone" if is_gone else f"cannot be read ({error.strerror})"
    if what:
        raise FluxdropError(f"{path} {what}, so {row.id} cannot be done again", kind="replay")


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
