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
from fluxdrop.publish.answer_fields import answer_fields, model_facts
from fluxdrop.publish.places import KEPT
from fluxdrop.records.result import (
    SCHEMA_VERSION,
    ErrorFacts,
    Failure,
    ImageFacts,
    ModelFacts,
    PredictionFacts,
    Preprocessed,
    Record,
    Result,
    Source,
)
from fluxdrop.timestamps import now


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
    jpeg_scale: int = 1
    """How many times smaller it was decoded for the tensor."""
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
_RESULT = Target("outputs", ".json")
_FAILURE = Target(f"outputs/{FAILED}", ".error.json")
_FAILED_INPUT = Target(f"outputs/{FAILED}", "")
_KEPT_INPUT = Target(f"{STATE}/{KEPT}", "")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model, or each of several, said of a picture."""

    picture: Picture
    model: ModelFacts
    answer: Answer
    max_labels: int
    """How many labels the record lists at most; 0 for all."""
    others: Sequence[tuple[ModelFacts, Answer]] = ()
    """What other models said."""


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
    others: Sequence[tuple[Bundle, EngineInfo, Answer]] = (),
) -> Finished:
    """Return the end of a job that succeeded.

    Args:
        job: The job; its `sha256` is the digest of the input.
        picture: Its picture; the tensor and the preview of it are in the job's folder.
        bundle: The model.
        engine: What ran the model.
        answer: What the model says; an embedding is in the job's folder, too.
        max_labels: How many labels the record lists at most, the most probable; 0 for all.
        others: The same three of each other model that was asked; their embeddings are in the job's folder, too.
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
    for number, (_, _, one) in enumerate([(bundle, engine, answer), *others]):
        if one.embedding is not None:
            files.append((job.embedding(number), _embedding(number)))
    said = [(model_facts(its_bundle, its_engine), one) for its_bundle, its_engine, one in others]
    facts = Prediction(picture, model_facts(bundle, engine), answer, max_labels, said)
    return Finished(job, facts, files, _RESULT)


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
            folder=job.inbox_folder,
        )
    picture = facts.picture
    generated = picture.generated
    return Result(
        schema_version=SCHEMA_VERSION,
        job_id=job.id,
        source=source,
        prompt=generated.parameters.prompt if generated else None,
        generation=generated.parameters if generated else None,
        generator=generated.generator if generated else None,
        nsfw=generated.nsfw if generated else None,
        prompt_weights=generated.prompt_weights if generated else [],
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
            jpeg_scale=picture.jpeg_scale,
        ),
        model=facts.model,
        **answer_fields(facts.answer, facts.max_labels, _embedding(0).path(name)),
        predictions=_predictions(facts, name),
        warnings=job.warnings,
        timings_ms=job.timings_ms,
        attempts=job.attempts,
        created=job.created,
        finished=now(),
        replay_of=job.options.replay_of,
        part=job.options.part,
        folder=job.inbox_folder,
    )


def _predictions(facts: Prediction, name: str) -> list[PredictionFacts]:
    """Return an entry for each model that answered, or none if it was only one."""
    if not facts.others:
        return []
    answers = [(facts.model, facts.answer), *facts.others]
    return [
        PredictionFacts(
            model=model,
            **answer_fields(answer, facts.max_labels, _embedding(number).path(name)),
        )
        for number, (model, answer) in enumerate(answers)
    ]


def _embedding(number: int) -> Target:
    """Return where the embedding of the model *number* is published, the first one being 0."""
    return Target("outputs", f".{number + 1}.npy" if number else ".npy")


def _with_kept(facts: ErrorFacts, path: str) -> ErrorFacts:
    hint = f"{facts.hint} It was moved to {path}.".lstrip()
    return replace(facts, hint=hint)
