"""The JSON beside each image, and beside the input of each failed job.

These classes are the only definition of the format. ``python -m fluxdrop.records.schema`` writes
``result.schema.json`` in this folder from them, docstrings included.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fluxdrop.decoders import decoder
from fluxdrop.generate.parameters import GenerationParameters, GeneratorInfo
from fluxdrop.jobs.job import Part

SCHEMA_VERSION: Literal[1] = 1

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Timestamp = Annotated[
    str, Meta(description="RFC 3339, UTC", extra_json_schema={"format": "date-time"})
]
Probability = Annotated[float, Meta(ge=0, le=1)]
# The limit up to which SQLite and every JSON reader keep integers exactly.
Attempts = Annotated[int, Meta(ge=0, le=2**53)]
# Linux allows no longer path, and no NUL in one.
Path = Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"^[^\u0000]*$")]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What was dropped: *file* is its path below inbox/."""

    file: Path
    kind: Literal["prompt", "picture", "unknown"]
    sha256: Sha256 | None


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The picture: *file* is its path below the root; sizes are in pixels."""

    file: str
    sha256: Sha256
    width: int
    height: int


class Preprocessed(msgspec.Struct, frozen=True, kw_only=True):
    """The tensor that the model got: *file* is its path below the root."""

    file: str
    preview: str
    shape: list[int]
    dtype: str


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Which model made the probabilities, and what it ran on.

    *julia* and *flux* are versions, null where they were not used; *backend* is ``flux`` (Flux's own layers),
    ``fast`` (Flux, computed by fluxdrop's layers), ``plain`` (without Flux) or ``onnxruntime``; *note* says why a
    preferred engine was not used.
    """

    bundle: str
    sha256: Sha256
    engine: str
    julia: str | None
    flux: str | None
    backend: str
    device: str
    note: str | None


class Guess(msgspec.Struct, frozen=True, kw_only=True):
    """One label with its probability."""

    label: str
    index: int
    p: Probability


class ErrorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, where, and what to do about it."""

    stage: Literal["intake", "generate", "preprocess", "predict", "publish"]
    kind: str
    message: str
    hint: str


class Result(msgspec.Struct, frozen=True, kw_only=True, tag_field="status", tag="done"):
    """outputs/NAME.json."""

    schema_version: Literal[1]
    job_id: str
    source: Source
    prompt: str | None
    generation: GenerationParameters | None
    generator: GeneratorInfo | None
    nsfw: bool | None
    image: ImageFacts
    preprocessed: Preprocessed
    model: ModelFacts
    probabilities: dict[str, Probability]
    top: list[Guess]
    warnings: list[str]
    timings_ms: dict[str, float]
    attempts: Attempts
    created: Timestamp
    finished: Timestamp
    replay_of: str | None
    part: Part | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag_field="status", tag="failed"):
    """outputs/failed/INPUT.error.json."""

    schema_version: Literal[1]
    job_id: str
    source: Source
    prompt: str | None
    error: ErrorFacts
    attempts: Attempts
    created: Timestamp
    finished: Timestamp
    replay_of: str | None
    part: Part | None = None


Record = Result | Failure


_DECODER: msgspec.json.Decoder[Record] = decoder(Record)


def encode(record: Record) -> bytes:
    """Encode *record* as indented JSON in UTF-8 that ends with a line feed."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, MemoryError)
"""What msgspec raises for bytes from an untrusted file that are not what they should be."""


def decode(data: bytes) -> Record:
    """Decode a record.

    Raises:
        msgspec.DecodeError: *data* is not JSON. The subclass ValidationError: it is not a record.
    """
    try:
        return _DECODER.decode(data)
    except msgspec.DecodeError:
        raise
    except UNDECODABLE as error:
        raise msgspec.DecodeError(str(error) or "It is too large") from error
