"""The JSON beside each image, and beside the input of each failed job.

These classes are the only definition of the format. ``python -m fluxdrop.records.schema`` writes
``result.schema.json`` in this folder from them, docstrings included.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fluxdrop.decoders import decoder
from fluxdrop.generate.parameters import GenerationParameters, GeneratorInfo, WeightedText
from fluxdrop.jobs.job import JpegScale, Part
from fluxdrop.predict.bundle import AnswerKind

SCHEMA_VERSION: Literal[2] = 2
"""The version that is written. Version 1 had only answers of kind classification, with all labels."""

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
    """The picture: *file* is its path below the root; sizes are in pixels, as it is shown.

    *format* is ``PNG``, ``JPEG``, ``WEBP``, ``TIFF``, ``BMP``, ``GIF``, ``AVIF``, ``JPEG2000``, ``HEIF`` or ``PPM``.
    """

    file: str
    format: str = "PNG"
    sha256: Sha256
    width: int
    height: int


class Preprocessed(msgspec.Struct, frozen=True, kw_only=True):
    """The tensor that the model got: *file* is its path below the root.

    It was made of all pixels if *jpeg_scale* is 1. If it is 2, 4 or 8, the JPEG was decoded at 1/2, 1/4 or 1/8 of its
    size (the setting ``fast_jpeg``): such a tensor, and the answer, differ a little from one that was made of all.
    """

    file: str
    preview: str
    shape: list[int]
    dtype: str
    jpeg_scale: JpegScale = 1


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Which model gave the answer, and what it ran on.

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


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """One number of a regression. *unit* is empty where the model has none."""

    name: str
    value: float
    unit: str


class EmbeddingFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The vector of an embedding: *file*, a path below the root, is a NumPy file with *dimension* float32 numbers."""

    file: str
    dimension: Annotated[int, Meta(ge=1)]


class PredictionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One model's answer, where the models of a folder are several. The fields are those of a result."""

    model: ModelFacts
    kind: AnswerKind
    probabilities: dict[str, Probability]
    top: list[Guess]
    label_count: int | None
    labels: list[str]
    thresholds: dict[str, Probability]
    values: list[Value]
    embedding: EmbeddingFacts | None


class ErrorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, where, and what to do about it."""

    stage: Literal["intake", "generate", "preprocess", "predict", "publish"]
    kind: str
    message: str
    hint: str


class Result(msgspec.Struct, frozen=True, kw_only=True, tag_field="status", tag="done"):
    """outputs/NAME.json.

    *kind* says which fields have the answer; those of other kinds are empty or null. ``classification``:
    *probabilities*, which add up to 1, and *top*, the most probable labels. ``multi-label``: *probabilities*, *top*,
    and *labels*, those that reach their *thresholds*, the most probable first. ``regression``: *values*.
    ``embedding``: *embedding*. *label_count* is the number of the model's labels. If they are more than the setting
    ``result_labels``, *probabilities*, *thresholds* and *labels* have only the most probable. *probabilities* is in the
    model's order. If several models answered, *predictions* has an entry for each, and the fields above have the first
    one's answer; else it is empty. *folder* is the table ``[folders."NAME"]`` that applied, null where none did.
    """

    schema_version: Literal[1, 2]
    job_id: str
    source: Source
    prompt: str | None
    generation: GenerationParameters | None
    generator: GeneratorInfo | None
    nsfw: bool | None
    prompt_weights: list[WeightedText] = []
    image: ImageFacts
    preprocessed: Preprocessed
    model: ModelFacts
    probabilities: dict[str, Probability]
    top: list[Guess]
    kind: AnswerKind = "classification"
    label_count: int | None = None
    labels: list[str] = []
    thresholds: dict[str, Probability] = {}
    values: list[Value] = []
    embedding: EmbeddingFacts | None = None
    predictions: list[PredictionFacts] = []
    warnings: list[str]
    timings_ms: dict[str, float]
    attempts: Attempts
    created: Timestamp
    finished: Timestamp
    replay_of: str | None
    part: Part | None = None
    folder: str | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag_field="status", tag="failed"):
    """outputs/failed/INPUT.error.json."""

    schema_version: Literal[1, 2]
    job_id: str
    source: Source
    prompt: str | None
    error: ErrorFacts
    attempts: Attempts
    created: Timestamp
    finished: Timestamp
    replay_of: str | None
    part: Part | None = None
    folder: str | None = None


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
