"""Records as a root gathers them over the months, for the tests and the benchmark of the gallery."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fluxdrop.files.layout import Root
from fluxdrop.gallery.data_pages import Pages
from fluxdrop.gallery.entry import entry_of
from fluxdrop.gallery.html_page import write_page
from fluxdrop.records.result import (
    ErrorFacts,
    Failure,
    Guess,
    ImageFacts,
    ModelFacts,
    Preprocessed,
    Record,
    Result,
    Source,
    encode,
)
from support.jobs import GENERATED

DIGEST = "0" * 64
EVERY_TENTH = 10


def result(name: str, number: int = 0, *, prompt: str = "a red circle", p: float = 0.75) -> Result:
    """A result whose files are called *name*; the label turns and the model changes with *number*."""
    label, other = ("round", "angular") if number % 2 else ("angular", "round")
    return Result(
        schema_version=1,
        job_id=job_id(number),
        source=Source(file=f"{name}.txt", kind="prompt", sha256=DIGEST),
        prompt=prompt,
        generation=msgspec.structs.replace(GENERATED.parameters, prompt=prompt),
        generator=GENERATED.generator,
        nsfw=None,
        image=ImageFacts(file=f"generated_images/{name}.png", sha256=DIGEST, width=64, height=64),
        preprocessed=Preprocessed(
            file=f"preprocessed_images/{name}.npy",
            preview=f"preprocessed_images/{name}.png",
            shape=[1, 1, 64, 64],
            dtype="float32",
        ),
        model=ModelFacts(
            bundle="round-or-angular" if number % 3 else "shapes of last year",
            sha256=DIGEST,
            engine="julia",
            julia="1.11.2",
            flux="0.16.3",
            backend="flux",
            device="cpu",
            note=None,
        ),
        probabilities={label: p, other: 1 - p},
        top=[Guess(label=label, index=0, p=p), Guess(label=other, index=1, p=1 - p)],
        warnings=[],
        timings_ms={"generate": 1500.0, "preprocess": 1.5, "predict": 0.5},
        attempts=1,
        created=moment(number),
        finished=moment(number),
        replay_of=None,
    )


def on_host(made: Result, host: str) -> Result:
    """*made* as the *host* of a cluster makes it."""
    assert made.generator is not None
    generator = msgspec.structs.replace(made.generator, host=host, host_class="H100")
    return msgspec.structs.replace(made, generator=generator)


def failure(name: str, number: int = 0, *, message: str = "It is empty.") -> Failure:
    """A failure whose input was called *name*."""
    return Failure(
        schema_version=1,
        job_id=job_id(number),
        source=Source(file=name, kind="prompt", sha256=DIGEST),
        prompt=None,
        error=ErrorFacts(
            stage="generate", kind="prompt", message=message, hint="Write a prompt into it."
        ),
        attempts=1,
        created=moment(number),
        finished=moment(number),
        replay_of=None,
    )


def job_id(number: int) -> str:
    """The id of the job with *number*."""
    return f"20260101T000000-{number:08x}"


def moment(number: int) -> str:
    """When the job with *number* ended."""
    return f"2026-01-{1 + number // 86_400:02}T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}.000Z"


def path_of(record: Record, name: str) -> str:
    """Where the JSON of *record* lies below the root."""
    return (
        f"outputs/{name}.json"
        if isinstance(record, Result)
        else f"outputs/failed/{name}.error.json"
    )


def place(root: Root, record: Record, name: str, picture: Path) -> tuple[Record, str]:
    """Lay *record* into *root* with its files, as the publisher does; what the daemon then tells."""
    path = root.path / path_of(record, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(record))
    if isinstance(record, Result):
        for folder in (root.outputs, root.preprocessed):
            target = folder / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(picture)
    return record, path_of(record, name)


def fill(root: Root, count: int, picture: Path) -> None:
    """A gallery of *count* jobs in *root*, each tenth failed, with their pictures but no JSON."""
    folders = root.open_outputs()
    pages = Pages(folders)
    entries = []
    for number in range(count):
        name = f"study {number:05}"
        record: Record = (
            failure(f"{name}.txt", number)
            if number % EVERY_TENTH == EVERY_TENTH - 1
            else result(name, number, prompt=f"a shape of kind {number} on a white background")
        )
        if isinstance(record, Result):
            (root.outputs / f"{name}.png").hardlink_to(picture)
        below = path_of(record, record.source.file if isinstance(record, Failure) else name)
        entries.append(entry_of(record, below.removeprefix("outputs/"), "picture"))
    pages.commit(pages.extend(pages.begin(root.path.name), entries))
    write_page(folders, root.path.name)
    folders.close()
