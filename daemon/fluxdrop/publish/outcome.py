"""The end of a job: its files, where they are published, and its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from msgspec.structs import replace

from fluxdrop.errors import FluxdropError
from fluxdrop.files.folders import STATE
from fluxdrop.files.layout import FAILED
from fluxdrop.generate.parameters import Generated
from fluxdrop.jobs.job import Job, StageName
from fluxdrop.predict.answer import Answer
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.printable import printable
from fluxdrop.publish.places import KEPT
from fluxdrop.records.result import (
    SCHEMA_VERSION,
    EmbeddingFacts,
    ErrorFacts,
    Failure,
    Guess,
    ImageFacts,
    ModelFacts,
    Preprocessed,
    Record,
    Result,
    Source,
    Value,
)
from fluxdrop.timestamps import now

_MAX_GUESSES = 5


@dataclass(frozen=True, slots=True)
class Picture:
    """The picture of a job, on the disk."""

    file: Path
    """The file: what was dropped, as it is, or the PNG that was generated."""
    format: str
    """Its format, a name in `fluxdrop.picture_formats`."""
    sha256: str
    """The digest of `file`, in hex."""
    width: int
    """In pixels."""
    height: int
    """In pixels."""
    shape: tuple[int, ...]
    """The shape of the tensor that was made of it."""
    generated: Generated | None = None
    """How it was generated, if it was."""


class Target(NamedTuple):
    """Where a file is published once its job has a NAME: in *folder*, a path below the root, as NAME + *suffix*."""

    folder: str
    suffix: str

    def path(self, name: str) -> str:
        """Return the path below the root for the NAME *name*, which may have subfolders."""
        return f"{self.folder}/{name}{self.suffix}"


_TENSOR = Target("preprocessed_images", ".npy")
_PREVIEW = Target("preprocessed_images", ".png")
_EMBEDDING = Target("outputs", ".npy")
_RESULT = Target("outputs", ".json")
_FAILURE = Target(f"outputs/{FAILED}", ".error.json")
_FAILED_INPUT = Target(f"outputs/{FAILED}", "")
_KEPT_INPUT = Target(f"{STATE}/{KEPT}", "")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model said of a picture."""

    picture: Picture
    model: ModelFacts
    answer: Answer
    max_labels: int
    """How many labels the record lists at most; 0 for all."""


class Finished(NamedTuple):
    """A job that came to its end and has no NAME yet."""

    job: Job
    facts: Prediction | ErrorFacts
    """What its record says beyond what `job` knows."""
    files: Sequence[tuple[Path, Target]]
    """Its files, without the record, and where each is published."""
    record: Target
    """Where its record is published."""

    @property
    def has_failed(self) -> bool:
        """Return whether the job failed. Then its NAME keeps the suffix of the source."""
        return isinstance(self.facts, ErrorFacts)


def _image(job: Job, folder: str) -> Target:
    """Return where in *folder* the picture of *job* is published: what was dropped keeps its suffix."""
    return Target(folder, PurePosixPath(job.source).suffix if job.kind == "picture" else ".png")


def done(
    job: Job,
    picture: Picture,
    bundle: Bundle,
    engine: EngineInfo,
    answer: Answer,
    max_labels: int = 0,
) -> Finished:
    """Return the end of a job that succeeded.

    Args:
        job: The job; its `sha256` is the digest of the input.
        picture: Its picture; the tensor and the preview of it are in the job's folder.
        bundle: The model.
        engine: What ran the model.
        answer: What the model says; an embedding is in the job's folder, too.
        max_labels: How many labels the record lists at most, the most probable; 0 for all.
    """
    files = [
        (picture.file, _image(job, "generated_images")),
        (picture.file, _image(job, "outputs")),
        (job.tensor, _TENSOR),
        (job.preview, _PREVIEW),
    ]
    # The untouched source is published beside its result; a dropped picture is the picture itself.
    if job.kind == "prompt":
        files.append((job.input, Target("outputs", ".txt")))
    if answer.embedding is not None:
        files.append((job.embedding, _EMBEDDING))
    model = ModelFacts(
        bundle=bundle.name,
        sha256=bundle.sha256,
        engine=engine.engine,
        julia=engine.version if engine.backend != "onnxruntime" else None,
        flux=engine.flux,
        backend=engine.backend,
        device=engine.device,
        note=engine.note,
    )
    return Finished(job, Prediction(picture, model, answer, max_labels), files, _RESULT)


def failed(job: Job, stage: StageName, error: FluxdropError) -> Finished:
    """Return the end of a job that failed in *stage* with *error*: its untouched input is published.

    The job's `sha256` is the digest of the input, or None where it is not known.
    """
    facts = ErrorFacts(
        stage=stage,
        kind=error.kind,
        message=printable(error.message),
        hint=printable(error.hint),
    )
    return Finished(job, facts, [(job.input, _FAILED_INPUT)], _FAILURE)


def keep_input(failure: Finished) -> Finished:
    """Return *failure* with .fluxdrop/kept/ as the target of its input, which its record will say."""
    return failure._replace(files=[(path, _KEPT_INPUT) for path, _ in failure.files])


def build_record(finished: Finished, name: str) -> Record:
    """Return the record of *finished*, whose NAME is *name*; it finished now."""
    job, facts = finished.job, finished.facts
    source = Source(file=job.source, kind=job.kind, sha256=job.sha256)
    if isinstance(facts, ErrorFacts):
        kept = [target.path(name) for _, target in finished.files if target == _KEPT_INPUT]
        return Failure(
            schema_version=SCHEMA_VERSION,
            job_id=job.id,
            source=source,
            prompt=job.prompt,
            error=_with_kept(facts, kept[0]) if kept else facts,
            attempts=job.attempts,
            created=job.created,
            finished=now(),
            replay_of=job.options.replay_of,
            part=job.options.part,
        )
    picture = facts.picture
    generated = picture.generated
    answer = facts.answer
    indices = {label: index for index, label in enumerate(answer.probabilities)}
    ranked = answer.ranked
    listed = {label for label, _ in ranked[: facts.max_labels or None]}
    return Result(
        schema_version=SCHEMA_VERSION,
        job_id=job.id,
        source=source,
        prompt=generated.parameters.prompt if generated else None,
        generation=generated.parameters if generated else None,
        generator=generated.generator if generated else None,
        nsfw=generated.nsfw if generated else None,
        image=ImageFacts(
            file=_image(job, "generated_images").path(name),
            format=picture.format,
            sha256=picture.sha256,
            width=picture.width,
            height=picture.height,
        ),
        preprocessed=Preprocessed(
            file=_TENSOR.path(name),
            preview=_PREVIEW.path(name),
            shape=list(picture.shape),
            dtype="float32",
        ),
        model=facts.model,
        probabilities=_only(answer.probabilities, listed),
        top=[Guess(label=label, index=indices[label], p=p) for label, p in ranked[:_MAX_GUESSES]],
        kind=answer.kind,
        label_count=len(answer.probabilities) or None,
        labels=answer.found[: facts.max_labels or None],
        thresholds=_only(answer.thresholds, listed),
        values=[
            Value(name=name, value=value, unit=answer.unit) for name, value in answer.values.items()
        ],
        embedding=None
        if answer.embedding is None
        else EmbeddingFacts(file=_EMBEDDING.path(name), dimension=len(answer.embedding)),
        warnings=job.warnings,
        timings_ms=job.timings_ms,
        attempts=job.attempts,
        created=job.created,
        finished=now(),
        replay_of=job.options.replay_of,
        part=job.options.part,
    )


def _only(numbers: dict[str, float], labels: set[str]) -> dict[str, float]:
    return {label: number for label, number in numbers.items() if label in labels}


def _with_kept(facts: ErrorFacts, path: str) -> ErrorFacts:
    hint = f"{facts.hint} It was moved to {path}.".lstrip()
    return replace(facts, hint=hint)
