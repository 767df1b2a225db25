"""What becomes of a job's files and facts when it is done, and when it failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.request import Generated
from fluxdrop.jobs.job import Job, StageName
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.printable import printable
from fluxdrop.publish.publisher import Finished
from fluxdrop.records.result import (
    SCHEMA_VERSION,
    ErrorFacts,
    Failure,
    Guess,
    ImageFacts,
    ModelFacts,
    Preprocessed,
    Result,
    Source,
)
from fluxdrop.timestamps import now

_TOP = 5


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture on the disk: *file* is the PNG, *original* what it was converted from, if any."""

    file: Path
    sha256: str
    width: int
    height: int
    shape: tuple[int, ...]
    original: Path | None = None
    original_suffix: str = ""
    generated: Generated | None = None


def done(
    job: Job, picture: Picture, bundle: Bundle, engine: EngineInfo, probabilities: dict[str, float]
) -> Finished:
    """The end of a job that came through; the digest of its input is the job's."""
    # The untouched source stays beside its result; a PNG source is the image itself.
    files: list[tuple[Path, Callable[[str], str]]] = [
        (picture.file, "generated_images/{}.png".format),
        (picture.file, "outputs/{}.png".format),
        (job.tensor, "preprocessed_images/{}.npy".format),
        (job.preview, "preprocessed_images/{}.png".format),
    ]
    if job.kind == "prompt":
        files.append((job.input, "outputs/{}.txt".format))
    elif picture.original is not None:
        files.append((picture.original, f"outputs/{{}}{picture.original_suffix}".format))
    ranked = sorted(enumerate(probabilities.items()), key=lambda item: -item[1][1])[:_TOP]
    generated = picture.generated

    def build(name: str) -> Result:
        return Result(
            schema_version=SCHEMA_VERSION,
            job_id=job.id,
            source=_source(job),
            prompt=generated.parameters.prompt if generated else None,
            generation=generated.parameters if generated else None,
            generator=generated.generator if generated else None,
            nsfw=generated.nsfw if generated else None,
            image=ImageFacts(
                file=f"generated_images/{name}.png",
                sha256=picture.sha256,
                width=picture.width,
                height=picture.height,
            ),
            preprocessed=Preprocessed(
                file=f"preprocessed_images/{name}.npy",
                preview=f"preprocessed_images/{name}.png",
                shape=list(picture.shape),
                dtype="float32",
            ),
            model=ModelFacts(
                bundle=bundle.name,
                sha256=bundle.sha256,
                engine=engine.engine,
                julia=engine.version if engine.backend != "onnxruntime" else None,
                flux=engine.flux,
                backend=engine.backend,
                device=engine.device,
                note=engine.note,
            ),
            probabilities=probabilities,
            top=[Guess(label=label, index=index, p=p) for index, (label, p) in ranked],
            warnings=job.warnings,
            timings_ms=job.timings_ms,
            attempts=job.attempts,
            created=job.created,
            finished=now(),
            replay_of=job.request.replay_of,
            part=job.request.part,
        )

    return Finished(job, files, "outputs/{}.json".format, build)


def failed(job: Job, stage: StageName, error: FluxdropError) -> Finished:
    """The end of a job that cannot be done: its untouched input and why. The digest of the input is the job's,
    if that has one."""

    def build(_name: str) -> Failure:
        return Failure(
            schema_version=SCHEMA_VERSION,
            job_id=job.id,
            source=_source(job),
            prompt=job.prompt,
            error=ErrorFacts(
                stage=stage,
                kind=error.kind,
                message=printable(error.message),
                hint=printable(error.hint),
            ),
            attempts=job.attempts,
            created=job.created,
            finished=now(),
            replay_of=job.request.replay_of,
            part=job.request.part,
        )

    return Finished(
        job,
        [(job.input, "outputs/failed/{}".format)],
        "outputs/failed/{}.error.json".format,
        build,
        has_failed=True,
    )


def _source(job: Job) -> Source:
    return Source(file=job.source, kind=job.kind, sha256=job.sha256)
