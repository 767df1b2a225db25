"""The columns that each row has, whatever the model: their names, types, meanings and values.

docs/results.md lists them. A column is never renamed or removed without a major version; new ones are added at the
end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import FAILED
from fluxdrop.records.result import Failure, PredictionFacts, Record, Result
from fluxdrop.records.short_answer import labels_of

Answer = Result | PredictionFacts
"""What has one model's answer."""
Cell = str | int | float | bool | list[str] | None
Kind = Literal["text", "integer", "seed", "number", "flag", "time", "list"]
"""The type of a column's cells; a ``seed`` is an integer of up to 64 bits without a sign."""

_INTEGERS = range(-(2**63), 2**63)
_SEEDS = range(2**64)


class Facts(NamedTuple):
    """What a row is made of."""

    record: Record
    answer: Answer | None
    """The answer of one model: the record itself, or one of its *predictions*; None for a failure."""
    number: int
    """Which of the record's answers it is, from 1."""
    path: str
    """The path of the record below the root."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    kind: Kind
    meaning: str
    value: Callable[[Facts], Cell]


def _done(value: Callable[[Result], Cell]) -> Callable[[Facts], Cell]:
    """Return *value* of a result; None of a failure."""
    return lambda facts: value(facts.record) if isinstance(facts.record, Result) else None


def _answer(value: Callable[[Answer], Cell]) -> Callable[[Facts], Cell]:
    """Return *value* of the answer; None of a failure."""
    return lambda facts: value(facts.answer) if facts.answer is not None else None


def _failed(value: Callable[[Failure], Cell]) -> Callable[[Facts], Cell]:
    """Return *value* of a failure; None of a result."""
    return lambda facts: value(facts.record) if isinstance(facts.record, Failure) else None


def _took(stage: str) -> Callable[[Facts], Cell]:
    return _done(lambda record: record.timings_ms.get(stage))


def name_of(path: str) -> str:
    """Return the NAME of the result whose record lies at *path* below the root, or of a failure's input."""
    below = PurePosixPath(path).relative_to("outputs")
    if below.parts[0] == FAILED and path.endswith(".error.json"):
        return str(below.relative_to(FAILED)).removesuffix(".error.json")
    return str(below).removesuffix(".json")


COLUMNS = (
    Column("job_id", "text", "the job's id", lambda facts: facts.record.job_id),
    Column(
        "status",
        "text",
        "`done` or `failed`",
        lambda facts: "failed" if isinstance(facts.record, Failure) else "done",
    ),
    Column(
        "name",
        "text",
        "the result's NAME, or the failed input's",
        lambda facts: name_of(facts.path),
    ),
    Column(
        "source",
        "text",
        "what was dropped: its path below inbox/",
        lambda facts: facts.record.source.file,
    ),
    Column(
        "source_kind",
        "text",
        "`picture`, `prompt` or `unknown`",
        lambda facts: facts.record.source.kind,
    ),
    Column("source_sha256", "text", "the digest of it", lambda facts: facts.record.source.sha256),
    Column("created", "time", "when it was claimed", lambda facts: facts.record.created),
    Column("finished", "time", "when the job ended", lambda facts: facts.record.finished),
    Column("model", "text", "the model's name", _answer(lambda answer: answer.model.bundle)),
    Column(
        "answer_kind",
        "text",
        "`classification`, `multi-label`, `regression` or `embedding`",
        _answer(lambda answer: answer.kind),
    ),
    Column(
        "label",
        "text",
        "the most probable label; of a multi-label answer, the most probable one that was found",
        _answer(lambda answer: next(iter(labels_of(answer)), None)),
    ),
    Column(
        "p",
        "number",
        "the probability of `label`",
        _answer(lambda answer: answer.top[0].p if answer.top and labels_of(answer) else None),
    ),
    Column(
        "labels",
        "list",
        "the labels that a multi-label answer found",
        _answer(lambda answer: answer.labels if answer.kind == "multi-label" else None),
    ),
    Column(
        "label_count",
        "integer",
        "how many labels the model has",
        _answer(lambda answer: answer.label_count),
    ),
    Column(
        "embedding",
        "text",
        "the embedding's .npy file, a path below the root",
        _answer(lambda answer: answer.embedding.file if answer.embedding else None),
    ),
    Column(
        "dimension",
        "integer",
        "how many numbers the embedding has",
        _answer(lambda answer: answer.embedding.dimension if answer.embedding else None),
    ),
    Column("image", "text", "the picture, a path below the root", _done(lambda r: r.image.file)),
    Column(
        "image_format",
        "text",
        "its format, where the result says it",
        _done(lambda record: record.image.format),
    ),
    Column("image_sha256", "text", "its digest", _done(lambda record: record.image.sha256)),
    Column("width", "integer", "its width in pixels", _done(lambda record: record.image.width)),
    Column("height", "integer", "its height in pixels", _done(lambda record: record.image.height)),
    Column("prompt", "text", "the prompt", lambda facts: facts.record.prompt),
    Column(
        "negative_prompt",
        "text",
        "what the picture should not show",
        _done(lambda record: record.generation.negative_prompt if record.generation else None),
    ),
    Column(
        "steps",
        "integer",
        "the denoising steps",
        _done(lambda record: record.generation.steps if record.generation else None),
    ),
    Column(
        "guidance_scale",
        "number",
        "the guidance scale",
        _done(lambda record: record.generation.guidance_scale if record.generation else None),
    ),
    Column(
        "seed",
        "seed",
        "the seed, up to 2^64-1 (a spreadsheet rounds it from 16 digits on)",
        _done(lambda record: record.generation.seed if record.generation else None),
    ),
    Column(
        "sampler",
        "text",
        "the sampler",
        _done(lambda record: record.generation.sampler if record.generation else None),
    ),
    Column(
        "pipeline",
        "text",
        "the pipeline that made the picture",
        _done(lambda record: record.generator.name if record.generator else None),
    ),
    Column("nsfw", "flag", "what the pipeline's safety checker says", _done(lambda r: r.nsfw)),
    Column("warnings", "list", "the warnings", _done(lambda record: record.warnings)),
    Column("generate_ms", "number", "how long generating took", _took("generate")),
    Column("preprocess_ms", "number", "how long preprocessing took", _took("preprocess")),
    Column("predict_ms", "number", "how long the model took", _took("predict")),
    Column("attempts", "integer", "how often it was tried", lambda facts: facts.record.attempts),
    Column("replay_of", "text", "the job that it repeats", lambda facts: facts.record.replay_of),
    Column(
        "part",
        "integer",
        "which of the pictures it is that one file asked for",
        lambda facts: facts.record.part.number if facts.record.part else None,
    ),
    Column(
        "parts",
        "integer",
        "how many pictures the file asked for",
        lambda facts: facts.record.part.of if facts.record.part else None,
    ),
    Column(
        "folder",
        "text",
        "the configured folder it was dropped in, if any",
        lambda facts: facts.record.folder,
    ),
    Column(
        "prediction",
        "integer",
        "which of several models' answers the row has, from 1",
        lambda facts: facts.number if facts.answer is not None else None,
    ),
    Column(
        "model_sha256", "text", "the model's digest", _answer(lambda answer: answer.model.sha256)
    ),
    Column("engine", "text", "what ran the model", _answer(lambda answer: answer.model.engine)),
    Column("backend", "text", "the layers that did", _answer(lambda answer: answer.model.backend)),
    Column("device", "text", "the device", _answer(lambda answer: answer.model.device)),
    Column(
        "error_stage",
        "text",
        "where a failed job failed",
        _failed(lambda record: record.error.stage),
    ),
    Column("error_kind", "text", "the kind of failure", _failed(lambda record: record.error.kind)),
    Column("error", "text", "why it failed", _failed(lambda record: record.error.message)),
    Column("record", "text", "the JSON file, a path below the root", lambda facts: facts.path),
    Column(
        "host",
        "text",
        "the host of the cluster that made the picture, if any",
        _done(lambda record: record.generator.host if record.generator else None),
    ),
    Column(
        "host_class",
        "text",
        "the GPU, dtype and versions of that host; one class makes the same bytes of one seed",
        _done(lambda record: record.generator.host_class if record.generator else None),
    ),
)

NAMES = tuple(column.name for column in COLUMNS)


def cells(facts: Facts) -> list[Cell]:
    """Return the cells of a row, one for each of `COLUMNS`.

    Raises:
        FluxdropError: A value is none of its column's type, so fluxdrop did not write it; kind ``record``.
    """
    row = [column.value(facts) for column in COLUMNS]
    for column, cell in zip(COLUMNS, row, strict=True):
        if cell is not None and not _fits(cell, column.kind):
            raise FluxdropError(
                f"{facts.path} is not a result of fluxdrop: it cannot have {cell!r} as {column.name}",
                kind="record",
            )
    return row


def _fits(cell: Cell, kind: Kind) -> bool:
    if kind == "integer":
        return cell in _INTEGERS
    if kind == "seed":
        return cell in _SEEDS
    if kind == "time":
        try:
            return datetime.fromisoformat(str(cell)).tzinfo is not None
        except ValueError:
            return False
    return True
