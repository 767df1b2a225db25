"""Find a finished job's record and files.

They are derived from the record's path in the index. The paths in a record itself are not used, since
anybody who may write to outputs/ can change them.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.files.regular import open_in_root, open_regular
from fluxdrop.jobs.store import Row
from fluxdrop.picture_formats import PICTURE_SUFFIXES
from fluxdrop.records.outputs import MAX_RECORD_BYTES
from fluxdrop.records.result import Failure, Record, Result, decode

_CONVERTED = (".jpg", ".webp")
"""The suffixes of dropped pictures that an earlier fluxdrop converted to PNG, and kept beside that."""
_CHUNK_BYTES = 1 << 20
_MAX_COMPARED_BYTES = 1 << 31


def read_record(root: Root, row: Row) -> Record:
    """Read the result or error JSON of the job *row*.

    Raises:
        FluxdropError: The job is not finished, or its record is gone or is not a record.
    """
    if row.record is None:
        raise FluxdropError(f"{row.id} is not finished", hint="Wait until it is.", kind="record")
    path = root.path / row.record
    try:
        with open_in_root(root.path, path, "record") as file:
            data = file.read(MAX_RECORD_BYTES + 1)
        if len(data) > MAX_RECORD_BYTES:
            raise FluxdropError(f"{path} is too large to be a result of fluxdrop", kind="record")
        return decode(data)
    except FluxdropError as error:
        if error.kind != "record":
            raise
        is_gone = isinstance(error.__cause__, FileNotFoundError)
        raise FluxdropError(
            f"The record of {row.id} is gone: {path}" if is_gone else error.message,
            hint="Restore it from a backup; nothing else says how the job was done.",
            kind="record",
        ) from error.__cause__
    except OSError as error:
        raise FluxdropError(f"{path} cannot be read: {error.strerror}", kind="record") from error
    except msgspec.DecodeError as error:
        raise FluxdropError(
            f"{path} is not a result of fluxdrop: {error}", kind="record"
        ) from error


def is_published(root: Root, row: Row, path: Path) -> bool:
    """Return whether a job's input was published.

    It was if the job's published input is the same file or has the same contents. The digest in the
    record is not used, since anybody may have written it.

    Args:
        root: The root.
        row: The job.
        path: The input in the job's folder.

    Raises:
        OSError: The disk failed.
    """
    try:
        record = read_record(root, row)
        assert row.record is not None
        published = files_of(root, row.record, record)["input"]
        with (
            open_in_root(root.path, published, "record") as one,
            open_regular(path, "record") as other,
        ):
            status, other_status = os.fstat(one.fileno()), os.fstat(other.fileno())
            if os.path.samestat(status, other_status):
                return True
            if not status.st_size == other_status.st_size <= _MAX_COMPARED_BYTES:
                return False
            return all(
                one.read(_CHUNK_BYTES) == other.read(_CHUNK_BYTES)
                for _ in range(0, status.st_size, _CHUNK_BYTES)
            )
    except FluxdropError:
        return False


def published_input(root: Root, row: Row) -> os.stat_result:
    """Return the status of the published input of the finished job *row*.

    Raises:
        FluxdropError: The record or the input is gone, or is not a regular file.
        OSError: The disk failed.
    """
    record = read_record(root, row)
    assert row.record is not None
    with open_in_root(root.path, files_of(root, row.record, record)["input"], "record") as file:
        return os.fstat(file.fileno())


def files_of(root: Root, path: str, record: Record) -> dict[str, Path]:
    """Return the paths of a job's files by role, whether they exist or not.

    Args:
        root: The root.
        path: The record's path below the root.
        record: The record.

    Returns:
        For a result: ``result``, ``input`` (the untouched dropped file), ``image`` (for a dropped picture,
        the same file), ``generated`` (the same picture in generated_images/), ``tensor`` and ``preview``,
        and ``embedding`` if it has one, and ``embedding-2`` and so on of further models. For a
        failure: ``error`` and ``input``.
    """
    if isinstance(record, Failure):
        return {"error": root.path / path, "input": root.path / path.removesuffix(".error.json")}
    stem = path.removesuffix(".json")
    name = stem.removeprefix(f"{root.outputs.name}/")
    suffix = image_suffix(record)
    image = root.path / f"{stem}{suffix}"
    files = {
        "result": root.path / path,
        "input": _input(root, stem, record.source.kind, image)
        if record.source.sha256 != record.image.sha256
        else image,
        "image": image,
        "generated": root.generated / f"{name}{suffix}",
        "tensor": root.preprocessed / f"{name}.npy",
        "preview": root.preprocessed / f"{name}.png",
    }
    if record.embedding is not None:
        files["embedding"] = root.path / f"{stem}.npy"
    for number, entry in enumerate(record.predictions[1:], 2):
        if entry.embedding is not None:
            files[f"embedding-{number}"] = root.path / f"{stem}.{number}.npy"
    return files


def image_suffix(record: Result) -> str:
    """Return the suffix of the picture of *record*, in the dropped file's own case.

    Of the path in the record only this is used, and only if it is that of a picture.
    """
    suffix = PurePosixPath(record.image.file).suffix
    return suffix if suffix.lower() in PICTURE_SUFFIXES else ".png"


def _input(root: Root, stem: str, kind: str, image: Path) -> Path:
    """Return the path of the prompt for *image*, or of the picture that an earlier fluxdrop converted to it."""
    if kind == "prompt":
        return root.path / f"{stem}.txt"
    originals = [root.path / f"{stem}{suffix}" for suffix in _CONVERTED]
    return next((path for path in originals if os.path.lexists(path)), image)
