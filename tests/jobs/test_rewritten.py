"""Inputs that are written to after they were taken."""

from __future__ import annotations

import hashlib
import os

import pytest

from fluxdrop.files.layout import Root
from fluxdrop.jobs.input_state import state_of
from fluxdrop.jobs.job import Job, JobOptions, Part
from fluxdrop.jobs.rewritten import discard_results, is_rewritten, is_written_by_others
from support.fakes import job_of


def taken(root: Root, name: str) -> Job:
    """A job whose input was read as it was taken."""
    job = job_of(root, name, b"a red circle")
    job.input_state = state_of(job.input)
    job.sha256 = hashlib.sha256(b"a red circle").hexdigest()
    return job


@pytest.mark.parametrize("name", ["a.txt", "a.png"])
@pytest.mark.parametrize(
    ("change", "is_noticed"),
    [("none", False), ("append", True), ("same size", True), ("while it was read", True)],
)
def test_noticed(root: Root, name: str, change: str, is_noticed: bool) -> None:
    """Whatever is written to an input after it was taken is noticed."""
    job = taken(root, name)
    before = job.input.stat().st_mtime_ns
    if change == "append":
        with job.input.open("ab") as file:
            file.write(b"!")
    if change == "same size":
        job.input.write_bytes(b"a red square")
        os.utime(job.input, ns=(before, before + 1))
    job.was_rewritten = change == "while it was read"

    assert is_noticed is is_rewritten(job, 1000, has_failed=False)


@pytest.mark.parametrize(
    ("name", "has_failed", "is_noticed"),
    [("a.png", False, False), ("a.png", True, True), ("a.txt", False, True)],
)
def test_time_alone(root: Root, name: str, has_failed: bool, is_noticed: bool) -> None:
    """A picture whose time alone was set, as copying programs do last, is as good as before; a prompt may have been
    read in part, and a failed picture may have been written since.
    """
    job = taken(root, name)
    os.utime(job.input, (1, 1))

    assert is_noticed is is_rewritten(job, 1000, has_failed=has_failed)


def test_whose_input(root: Root) -> None:
    """The input of a replay, or of a part but the first, is a copy that nobody else writes to."""
    job = taken(root, "a.txt")
    first, second = (Part(number=number, of=2, first=job.id) for number in (1, 2))
    options = [
        JobOptions(),
        JobOptions(replay_of="x"),
        JobOptions(part=first),
        JobOptions(part=second),
    ]
    found = []
    for each in options:
        job.options = each
        found.append(is_written_by_others(job))

    assert [True, False, True, False] == found


def test_discard_results(root: Root) -> None:
    """Of a job that begins anew nothing is left but its input and whether it was cancelled."""
    job = taken(root, "a.txt")
    for path in (job.image, job.generation, job.tensor, job.preview, job.record, job.cancelled):
        path.write_bytes(b"x")
    (job.folder / "fault").write_bytes(b"incomplete: it is empty")

    discard_results(job.folder)

    assert {job.input, job.cancelled} == set(job.folder.iterdir())
