"""A finished job's record and files, found by where the index has the record: what a record says of
paths anybody can change.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.files.regular import open_in_root, open_regular
from fluxdrop.jobs.store import Row
from fluxdrop.records.outputs import MOST_BYTES
from fluxdrop.records.result import Failure, Record, decode

_ORIGINALS = (".jpg", ".webp")
_CHUNK = 1 << 20
_MOST_COMPARED = 1 << 31


def read_record(root: Root, row: Row) -> Record:
    """The result or error JSON of the job *row*.

    Raises FluxdropError when the job is not finished, or its record is gone or no record.
    """
    if row.record is None:
        raise FluxdropError(f"{row.id} is not finished", hint="Wait until it is.", kind="record")
    path = root.path / row.record
    try:
        with open_in_root(root.path, path, "record") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise FluxdropError(f"{path} is too large to be a result of fluxdrop", kind="record")
        return decode(data)
    except OSError as error:
        raise FluxdropError(f"{path} cannot be read: {error.strerror}", kind="record") from error
    except msgspec.DecodeError as error:
        raise FluxdropError(
            f"{path} is not a result of fluxdrop: {error}", kind="record"
        ) from error


def is_published(root: Root, row: Row, path: Path) -> bool:
    """Whether the file *path* in a job's folder, or one with the same contents, has its name among the results of
    the job *row*; what its record says of a digest anybody may have written. Raises OSError for a disk in trouble.
    """
    try:
        record = read_record(root, row)
        assert row.record is not None
        published = files_of(root, row.record, record)["input"]
        with (
            open_in_root(root.path, published, "record") as one,
            open_regular(path, "record") as other,
        ):
            facts, others = os.fstat(one.fileno()), os.fstat(other.fileno())
            if os.path.samestat(facts, others):
                return True
            if not facts.st_size == others.st_size <= _MOST_COMPARED:
                return False
            return all(
                one.read(_CHUNK) == other.read(_CHUNK) for _ in range(0, facts.st_size, _CHUNK)
            )
    except FluxdropError:
        return False


def files_of(root: Root, path: str, record: Record) -> dict[str, Path]:
    """The files of the job whose *record* lies at *path* below *root*, there or not, by what they are.

    Of a result: ``result``, ``input`` (what was dropped, untouched), ``image``, ``generated`` (the
    same picture in generated_images/), ``tensor`` and ``preview``; of a failure: ``error`` and
    ``input``.
    """
    if isinstance(record, Failure):
        return {"error": root.path / path, "input": root.path / path.removesuffix(".error.json")}
    stem = path.removesuffix(".json")
    name = stem.removeprefix(f"{root.outputs.name}/")
    image = root.path / f"{stem}.png"
    return {
        "result": root.path / path,
        "input": _input(root, stem, record.source.kind, image)
        if record.source.sha256 != record.image.sha256
        else image,
        "image": image,
        "generated": root.generated / f"{name}.png",
        "tensor": root.preprocessed / f"{name}.npy",
        "preview": root.preprocessed / f"{name}.png",
    }


def _input(root: Root, stem: str, kind: str, image: Path) -> Path:
    """What *image* was made of: the prompt, or the picture that it was converted from."""
    if kind == "prompt":
        return root.path / f"{stem}.txt"
    originals = [root.path / f"{stem}{suffix}" for suffix in _ORIGINALS]
    return next((path for path in originals if os.path.lexists(path)), image)
