"""The entries of the gallery: what of a job's record is shown on its card and in its details."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

import msgspec

from fluxdrop.generate.parameters import GenerationParameters, GeneratorInfo
from fluxdrop.records.job_files import image_suffix
from fluxdrop.records.result import Failure, ModelFacts, Record, Result
from fluxdrop.records.short_answer import labels_of, short_answer, value_text

Thumbnail = Literal["picture", "made", "preview"]
"""What a card shows: the picture itself, a smaller copy of it, or what the model saw."""

# https://developer.mozilla.org/docs/Web/Media/Guides/Formats/Image_types
_SHOWN = frozenset({"PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF"})
_MAX_TEXT = 600
_MAX_LABEL = 80
_MAX_PATH = 4096
_MAX_GUESSES = 10
_MAX_FOUND = 20


class FailureEntry(msgspec.Struct, frozen=True):
    """Why a job failed, and what the user can do."""

    stage: str
    kind: str
    message: str
    hint: str


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job. Long texts are truncated, to keep a page of entries small."""

    id: str
    state: Literal["done", "failed"]
    kind: Literal["prompt", "picture", "unknown"]
    name: str
    """The path below outputs/, without suffix, that the job's files share; for a failure, its input's."""
    source: str
    suffix: str = ".png"
    """That of the picture, which lies beside the record."""
    opaque: bool = False
    """Whether browsers cannot show the picture itself."""
    finished: str
    prompt: str = ""
    replay_of: str = ""
    folder: str = ""
    """The configured folder of the inbox that it was dropped in."""
    model: str = ""
    also: list[str] = []
    """The names of the other models that answered, with their answers."""
    engine: str = ""
    top: list[tuple[str, float]] = []
    labels: list[str] | None = None
    """The labels that were found, for an answer of several labels; None for other kinds."""
    value: str = ""
    """A regression's values, or an embedding's dimension."""
    vector: bool = False
    """Whether an embedding lies beside the picture."""
    size: tuple[int, int] | None = None
    """The picture's width and height in pixels."""
    thumbnail: Thumbnail = "picture"
    made: str = ""
    """How the picture was generated."""
    milliseconds: float = 0.0
    """The time that all stages took together."""
    warnings: list[str] = []
    error: FailureEntry | None = None


def entry_of(record: Record, path: str, thumbnail: Thumbnail) -> Entry:
    """Return the entry for a record.

    Args:
        record: The job's record.
        path: The record's JSON file, relative to outputs/.
        thumbnail: What the card shows; ignored for a failure.
    """
    if isinstance(record, Failure):
        return _failed(record, path)
    return _done(record, path, thumbnail)


def is_opaque(record: Result) -> bool:
    """Return whether browsers cannot show the picture of *record* itself, only a copy of it."""
    return record.image.format not in _SHOWN


def labels_shown(entry: Entry) -> list[str]:
    """Return the labels under which the gallery counts *entry*: the most probable class, or those that were found."""
    if entry.labels is not None:
        return entry.labels
    return [entry.top[0][0]] if entry.top else []


def _failed(record: Failure, path: str) -> Entry:
    error = record.error
    return Entry(
        id=record.job_id,
        state="failed",
        kind=record.source.kind,
        name=path.removesuffix(".error.json"),
        source=_truncate(record.source.file, _MAX_PATH),
        finished=_truncate(record.finished, _MAX_LABEL),
        prompt=_truncate(record.prompt or ""),
        replay_of=_truncate(record.replay_of or "", _MAX_LABEL),
        folder=_truncate(record.folder or ""),
        error=FailureEntry(
            error.stage,
            _truncate(error.kind, _MAX_LABEL),
            _truncate(error.message),
            _truncate(error.hint),
        ),
    )


def _done(record: Result, path: str, thumbnail: Thumbnail) -> Entry:
    return Entry(
        id=record.job_id,
        state="done",
        kind=record.source.kind,
        name=str(PurePosixPath(path).with_suffix("")),
        suffix=image_suffix(record),
        opaque=is_opaque(record),
        source=_truncate(record.source.file, _MAX_PATH),
        finished=_truncate(record.finished, _MAX_LABEL),
        prompt=_truncate(record.prompt or ""),
        replay_of=_truncate(record.replay_of or "", _MAX_LABEL),
        folder=_truncate(record.folder or ""),
        model=_truncate(record.model.bundle),
        also=[
            _truncate(f"{other.model.bundle}: {short_answer(other)}", 2 * _MAX_LABEL)
            for other in record.predictions[1:]
        ],
        engine=_truncate(_engine(record.model)),
        top=[
            (_truncate(guess.label, _MAX_LABEL), round(guess.p, 4))
            for guess in record.top[:_MAX_GUESSES]
        ],
        labels=[_truncate(label, _MAX_LABEL) for label in labels_of(record)[:_MAX_FOUND]]
        if record.kind == "multi-label"
        else None,
        value=_truncate(value_text(record)),
        vector=record.embedding is not None,
        size=(record.image.width, record.image.height),
        thumbnail=thumbnail,
        made=_truncate(_made(record.generation, record.generator)),
        milliseconds=round(sum(record.timings_ms.values()), 1),
        warnings=[_truncate(warning) for warning in record.warnings[:3]],
    )


def _engine(model: ModelFacts) -> str:
    if model.julia is None:
        return f"{model.engine} on {model.device}"
    layers = f"Flux {model.flux}" if model.flux else "plain layers"
    return f"{model.engine}, Julia {model.julia}, {layers}, on {model.device}"


def _made(parameters: GenerationParameters | None, generator: GeneratorInfo | None) -> str:
    if parameters is None or generator is None:
        return ""
    guidance = parameters.guidance_scale
    return ", ".join(
        [
            generator.model,
            f"seed {parameters.seed}",
            f"{parameters.steps} steps",
            parameters.sampler,
            *([] if guidance is None else [f"CFG scale {guidance:g}"]),
            *([] if generator.host is None else [f"on {generator.host}"]),
        ]
    )


def _truncate(text: str, longest: int = _MAX_TEXT) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
