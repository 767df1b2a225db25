"""Doing a job again."""

from __future__ import annotations

import errno
import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.jobs.claim import NewJob
from fluxdrop.jobs.job import Job
from fluxdrop.jobs.select import find_job
from fluxdrop.jobs.store import Store
from fluxdrop.publish.publisher import Publisher
from fluxdrop.requests.messages import Start
from fluxdrop.requests.reader import Requests
from fluxdrop.requests.replay import plan_replay, request_replay
from support import jobs
from support.earlier_roots import convert


def publish(root: Root, *sources: str) -> list[str]:
    """Publish a job for each of *sources*; their ids."""
    batch = [jobs.ended(jobs.job_in(jobs.claimed(root, source))) for source in sources]
    with closing(Store(root.database)) as store:
        Publisher(root, store).publish(batch)
    return [finished.job.id for finished in batch]


def replay_job(root: Root, job: str, start: Start = "generate") -> tuple[str, str]:
    """Ask for *job* to be done again; its id and the new job's."""
    with closing(Store(root.database, read_only=True)) as store:
        row = find_job(root, store, job)
    return row.id, request_replay(root, plan_replay(root, row, start=start))


def requested(root: Root) -> Job:
    """The one job that was asked for."""
    found: list[NewJob] = []
    with closing(Store(root.database)) as store:
        Requests(
            root,
            store,
            accept=found.append,
            room=lambda _is_prompt: True,
            max_bytes=lambda: 1000,
            use=lambda _name, _told: pytest.fail("nobody asked for a model"),
            cancel=lambda _ids: pytest.fail("nobody cancelled"),
        ).step()
    (job,) = found
    return jobs.job_in(job.folder)


def test_prompt(root: Root) -> None:
    """A prompt is done again with the recorded parameters, the seed that was used among them."""
    (first,) = publish(root, "sub/v1.5 cat.txt")

    of, again = replay_job(root, first)

    job = requested(root)
    made = jobs.GENERATED.parameters
    expected = PromptParameters(
        prompt=made.prompt,
        negative_prompt="",
        steps=20,
        guidance_scale=7.0,
        seed=2**64 - 1,
        width=64,
        height=64,
        sampler="DDIM",
        pipeline="shapes-diffusion",
    )
    assert (first, again, first, expected) == (
        of,
        job.id,
        job.options.replay_of,
        job.options.generation,
    )
    assert ("sub/v1.5 cat.txt", f"input of {first}") == (job.source, job.input.read_text())


@pytest.mark.parametrize(("source", "name"), [("cat.png", "cat"), ("a/cat.png", "a/cat")])
def test_picture_by_name(root: Root, source: str, name: str) -> None:
    """A picture is done again from what was kept of it, found by its NAME."""
    (first,) = publish(root, source)

    replay_job(root, name)

    job = requested(root)
    assert (source, f"input of {first}", None) == (
        job.source,
        job.input.read_text(),
        job.options.generation,
    )


def test_second_of_a_name(root: Root) -> None:
    """Of equal names, the one that was asked for is done again."""
    _, second = publish(root, "cat.png", "cat.png")

    replay_job(root, "cat-2")

    job = requested(root)
    assert (second, f"input of {second}") == (job.options.replay_of, job.input.read_text())


@pytest.mark.parametrize("start", ["generate", "preprocess"])
def test_dropped_picture(root: Root, start: Start) -> None:
    """A picture is done again from the file that was dropped, under its own name."""
    (first,) = publish(root, "cat.JPEG")

    replay_job(root, "cat", start)

    job = requested(root)
    assert ("cat.JPEG", f"input of {first}") == (job.source, job.input.read_text())


CONVERTED = [("generate", "cat.jpeg", "input"), ("preprocess", "cat.png", "image")]


@pytest.mark.parametrize(("start", "source", "content"), CONVERTED)
def test_converted_picture(root: Root, start: Start, source: str, content: str) -> None:
    """A picture that an earlier fluxdrop converted is done again from what was dropped, or from what it became."""
    (first,) = publish(root, "cat.jpeg")
    convert(root, "cat", "jpeg")

    replay_job(root, "cat", start)

    job = requested(root)
    assert (source, f"{content} of {first}") == (job.source, job.input.read_text())


@pytest.mark.parametrize("start", ["preprocess", "predict"])
def test_from_what_was_recorded(root: Root, start: Start) -> None:
    """A prompt is done again from its picture without being generated, or from its tensor as well."""
    (first,) = publish(root, "sub/cat.txt")

    replay_job(root, first, start)

    job = requested(root)
    has_tensor = start == "predict"
    assert ("sub/cat.png", f"image of {first}", None) == (
        job.source,
        job.input.read_text(),
        job.options.generation,
    )
    assert (has_tensor, [f"tensor of {first}"] * has_tensor) == (
        job.options.has_tensor,
        [path.read_text() for path in job.folder.glob("*.npy")],
    )


@pytest.mark.parametrize(
    ("start", "expected"), [("generate", 1), ("preprocess", 1), ("predict", 4)]
)
def test_tensor_of_a_smaller_jpeg(root: Root, start: Start, expected: int) -> None:
    """How small a JPEG was decoded is known of a recorded tensor that is used again, and of no other."""
    (first,) = publish(root, "cat.jpg")
    path = root.outputs / "cat.json"
    record = json.loads(path.read_bytes())
    record["preprocessed"]["jpeg_scale"] = 4
    path.write_text(json.dumps(record))

    replay_job(root, first, start)

    assert expected == requested(root).options.jpeg_scale


@pytest.mark.parametrize(("start", "what"), [("predict", "tensor"), ("preprocess", "picture")])
def test_failure_has_nothing_recorded(root: Root, start: Start, what: str) -> None:
    """A prompt that failed has no picture and no tensor to begin with, and that is said."""
    with closing(Store(root.database)) as store:
        job = jobs.job_in(jobs.claimed(root, "cat.txt"))
        Publisher(root, store).publish([jobs.failed(job)])

    with pytest.raises(FluxdropError, match=f"has no {what} to begin with"):
        replay_job(root, job.id, start)


@pytest.mark.parametrize("name", ["x/cat.pdf", None])
def test_failure(root: Root, name: str | None) -> None:
    """A failed job is done again from its untouched input."""
    (first,) = publish(root, "x/cat.pdf")

    replay_job(root, name or first)

    job = requested(root)
    assert ("x/cat.pdf", f"input of {first}") == (job.source, job.input.read_text())


def test_changed_record(root: Root) -> None:
    """A record that somebody changed leads to no file outside of the root."""
    (first,) = publish(root, "cat.png")
    path = root.outputs / "cat.json"
    record = json.loads(path.read_bytes())
    record["image"]["file"] = "../../../../../../etc/hostname"
    path.write_text(json.dumps(record))

    replay_job(root, first)

    assert f"input of {first}" == requested(root).input.read_text()


@pytest.mark.parametrize("source", ["/etc/cat.png", "../cat.png", "a/../../cat.png", ""])
def test_source_outside_of_the_inbox(root: Root, source: str) -> None:
    """A job whose source in the index is no path below inbox/ is not done again: a record that somebody wrote may
    have said so."""
    (first,) = publish(root, "cat.png")
    with closing(Store(root.database, read_only=True)) as store:
        row = find_job(root, store, first)

    with pytest.raises(FluxdropError, match="is not the path of a file below inbox/"):
        plan_replay(root, row._replace(source=source))


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        ("outputs/cat.png", r"outputs/cat\.png is gone, so .* cannot be done again\."),
        ("outputs/cat.json", r"^The record of .* is gone: .*/outputs/cat\.json"),
    ],
)
def test_files_that_are_gone(root: Root, gone: str, sentence: str) -> None:
    """Without the record or the input there is nothing to do again."""
    (first,) = publish(root, "cat.png")
    (root.path / gone).unlink()

    with pytest.raises(FluxdropError, match=sentence):
        replay_job(root, first)

    assert [] == list(root.requests.iterdir())


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, r"cannot be read \(Permission denied\), so .* cannot be done again\."),
        (errno.ELOOP, r"cannot be read \(Too many levels of symbolic links\), so "),
    ],
)
def test_input_that_may_not_be_seen(
    root: Root, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    """What is wrong with the one file ends its replay, and no outage of the disk that others wait for."""
    (first,) = publish(root, "cat.png")
    spoiled = root.outputs / "cat.png"
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        if path == spoiled:
            raise OSError(number, os.strerror(number), str(path))
        return real(path)

    monkeypatch.setattr(Path, "lstat", lstat)

    with pytest.raises(FluxdropError, match=said):
        replay_job(root, first)


def test_input_that_is_a_link(root: Root) -> None:
    """A link in place of an input is not followed, wherever it leads, and nothing of where it leads is asked."""
    (first,) = publish(root, "cat.png")
    (root.outputs / "cat.png").unlink()
    (root.outputs / "cat.png").symlink_to(root.outputs / "cat.json")

    with pytest.raises(FluxdropError, match=r"cat\.png is not a regular file, so "):
        replay_job(root, first)


def test_no_record(root: Root) -> None:
    """A JSON that is no result is named."""
    publish(root, "cat.png")
    (root.outputs / "cat.json").write_text("{}")

    with pytest.raises(FluxdropError, match=r"cat\.json is not a result of fluxdrop"):
        replay_job(root, "cat")


@pytest.mark.parametrize("has_jobs", [True, False])
def test_unknown_job(root: Root, has_jobs: bool) -> None:
    """A job that is not there is said to be so, also where there never was a job."""
    if has_jobs:
        publish(root, "cat.png")

    with pytest.raises(FluxdropError, match=r"There is no job dog\."):
        replay_job(root, "dog")


def test_unfinished_job(root: Root) -> None:
    """A job in hand is not done again yet."""
    job = jobs.job_in(jobs.claimed(root, "cat.png"))
    with closing(Store(root.database)) as store:
        store.claimed([jobs.claimed_row(job)])

    with pytest.raises(FluxdropError, match=rf"{job.id} is not finished"):
        replay_job(root, job.id)


def test_ambiguous_beginning(root: Root) -> None:
    """A beginning that several ids share is not guessed from; the ids are named."""
    ids = publish(root, "cat.png", "dog.png")

    with pytest.raises(FluxdropError) as caught:
        replay_job(root, "2")

    assert [True, True] == [job in caught.value.message for job in ids]
