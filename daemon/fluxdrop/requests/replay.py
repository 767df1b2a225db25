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
from fluxdrop.files.regular import is_file_error, open_in_root
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.jobs.claim import is_below_inbox, make_place
from fluxdrop.jobs.job import OPTIONS, TENSOR, JobOptions
from fluxdrop.jobs.store import Row
from fluxdrop.records.drift import host_class_of
from fluxdrop.records.job_files import files_of, read_record
from fluxdrop.records.result import Failure, Record, Result
from fluxdrop.requests.messages import ReplayRequest, Start, ask

_CHUNK = 1 << 20
_MAX_TENSOR_BYTES = 256 * 1024**2


class Replay(NamedTuple):
    """What a replay needs, before it is asked for."""

    row: Row
    """The job that is to be done again."""
    record: Record
    """The record of that job."""
    options: JobOptions
    """The options of the new job."""
    name: str
    """The source of the new job, a path below inbox/."""
    source: Path
    """The file that becomes the new job's input."""
    tensor: Path | None
    """The file that becomes the new job's tensor, if it begins with that."""
    start: Start
    """The stage with which the new job begins."""


def plan_replay(
    root: Root, row: Row, *, start: Start = "generate", model: str | None = None
) -> Replay:
    """Find what a replay needs.

    Args:
        root: The root.
        row: The job that is to be done again.
        start: The stage to begin with.
        model: The model to use instead of the one in use.

    Raises:
        FluxdropError: The job is not finished, or a file that is needed is gone or never existed.
        OSError: The disk is full or not available.
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
        name = name.with_suffix(source.suffix)
        tensor = files["tensor"] if start == "predict" else None
    for path in filter(None, (source, tensor)):
        _refuse_missing(row, path)
    made = isinstance(record, Result) and record.generation is not None and start == "generate"
    options = JobOptions(
        replay_of=row.id,
        generation=_generation(record) if isinstance(record, Result) and made else None,
        model=model,
        has_tensor=tensor is not None,
        jpeg_scale=_jpeg_scale(record) if tensor is not None else 1,
        part=record.part if start == "generate" else None,
        host_class=host_class_of(record) if made else None,
    )
    return Replay(row, record, options, str(name), source, tensor, start)


def build_replay(root: Root, replay: Replay, folder: Path, max_bytes: int) -> list[Path]:
    """Make the folder of the new job, with copies of what it needs.

    Args:
        root: The root.
        replay: What `plan_replay` found.
        folder: The new folder.
        max_bytes: The largest input that is copied.

    Returns:
        The files in the folder that are not synced.

    Raises:
        FluxdropError: A file is gone, is not a regular file, or is too large.
        OSError: The disk is full or not available.
    """
    target = make_place(folder, replay.name)
    _copy(root, replay.source, target, max_bytes)
    files = [target]
    if replay.tensor is not None:
        _copy(root, replay.tensor, folder / TENSOR, max(max_bytes, _MAX_TENSOR_BYTES))
        files.append(folder / TENSOR)
    durable.put(folder / OPTIONS, msgspec.json.encode(replay.options))
    return [*files, folder / OPTIONS]


def _copy(root: Root, source: Path, target: Path, max_bytes: int) -> None:
    """Copy *source*, a file in *root*, to the new file *target*. Raises what `build_replay` does."""
    with open_in_root(root.path, source, "replay") as reader, target.open("xb") as writer:
        left = max_bytes + 1
        while data := reader.read(min(left, _CHUNK)):
            writer.write(data)
            left -= len(data)
    if not left:
        raise FluxdropError(
            f"{source} is larger than the {max_bytes:,} bytes of max_file_bytes", kind="replay"
        )


def request_replay(root: Root, replay: Replay) -> str:
    """Ask the daemon of *root* for *replay*; return the id of the new job. Raises FluxdropError."""
    return ask(root, ReplayRequest(replay.row.id, replay.start, replay.options.model))


def _refuse_missing(row: Row, path: Path) -> None:
    """Raise FluxdropError if *path*, which a replay of *row* needs, is not a regular file. Raises OSError.

    `_copy` finds that out too: this is for commands, before they make a request.
    """
    try:
        what = "" if stat.S_ISREG(path.lstat().st_mode) else "is not a regular file"
    except OSError as error:
        if not is_file_error(error):
            raise
        is_gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
        what = "is gone" if is_gone else f"cannot be read ({error.strerror})"
    if what:
        raise FluxdropError(f"{path} {what}, so {row.id} cannot be done again", kind="replay")


def _refuse_later_start(row: Row, failure: Failure, start: Start) -> None:
    """Raise FluxdropError if the failed job *row* has nothing recorded for *start*."""
    if start == "predict" or (start == "preprocess" and failure.source.kind == "prompt"):
        what = "tensor" if start == "predict" else "picture"
        raise FluxdropError(
            f"{row.id} failed and has no {what} to begin with",
            hint="Replay it without --from.",
            kind="replay",
        )


def _jpeg_scale(record: Record) -> int:
    """Return how many times smaller the JPEG was decoded of which the tensor of *record* was made."""
    return record.preprocessed.jpeg_scale if isinstance(record, Result) else 1


def _generation(record: Result) -> PromptParameters:
    """Return the parameters that make the picture of *record*, which was generated."""
    made = record.generation
    assert made is not None
    return PromptParameters(
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
