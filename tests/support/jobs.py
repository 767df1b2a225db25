"""Jobs as the stages leave them, for the tests of what comes after."""

from __future__ import annotations

from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.generate.parameters import Generated, GenerationParameters, GeneratorInfo
from fluxdrop.jobs.claim import make_place
from fluxdrop.jobs.job import Job, file_sha256, input_sha256, open_job
from fluxdrop.jobs.job_id import new_job_id
from fluxdrop.jobs.store import Row
from fluxdrop.predict.answer import Answer
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.publish import outcome
from fluxdrop.publish.outcome import Finished

ENGINE = EngineInfo(engine="julia", backend="plain", version="1.5.3", pid=1, note="no Flux")
BUNDLE = load_bundle("round-or-angular")
GENERATED = Generated(
    parameters=GenerationParameters(
        prompt="a red circle",
        negative_prompt="",
        steps=20,
        guidance_scale=7.0,
        seed=2**64 - 1,
        width=64,
        height=64,
        sampler="DDIM",
    ),
    generator=GeneratorInfo(
        name="shapes-diffusion",
        pipeline="StableDiffusionPipeline",
        model="shapes-diffusion",
        revision=None,
        device="cpu",
        dtype="float32",
    ),
    warnings=[],
    width=64,
    height=64,
    nsfw=None,
)


def claimed(root: Root, source: str | bytes) -> Path:
    """The folder of a new job whose claimed input is *source*, a path below inbox/."""
    folder = root.work / new_job_id()
    name = source if isinstance(source, str) else source.decode("utf-8", "surrogateescape")
    make_place(folder, name).write_text(f"input of {folder.name}")
    return folder


def job_in(folder: Path) -> Job:
    """The job in *folder*."""
    job = open_job(folder)
    assert job is not None
    return job


def claimed_row(job: Job) -> Row:
    """What the index has of *job* while it is in hand."""
    return Row(job.id, "claimed", job.kind, job.source, created=job.created)


def picture(job: Job) -> outcome.Picture:
    """The picture of *job*, with all the files that the stages make on the way."""
    if job.kind == "prompt":
        job.image.write_text(f"image of {job.id}")
    job.tensor.write_text(f"tensor of {job.id}")
    job.preview.write_text(f"preview of {job.id}")
    file = job.image if job.kind == "prompt" else job.input
    return outcome.Picture(
        file=file,
        format="PNG",
        sha256=file_sha256(file),
        width=64,
        height=64,
        shape=(1, 1, 64, 64),
        generated=GENERATED if job.kind == "prompt" else None,
    )


def done(job: Job) -> Finished:
    """*job* come through."""
    job.timings_ms["predict"] = 0.5
    job.sha256 = file_sha256(job.input)
    answer = Answer("classification", {"angular": 0.25, "round": 0.75})
    return outcome.done(job, picture(job), BUNDLE, ENGINE, answer)


def failed(job: Job) -> Finished:
    """*job* failed."""
    job.sha256 = input_sha256(job, 1000)
    error = FluxdropError("It is empty.", hint="Drop it again.", kind="incomplete")
    return outcome.failed(job, "intake", error)


def ended(job: Job) -> Finished:
    """*job* as it ends by its kind: what fluxdrop does not take has failed."""
    return failed(job) if job.kind == "unknown" else done(job)
