"""Jobs whose inputs are written to in their own folders, with real files and descriptors."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from fluxdrop.config import Settings
from fluxdrop.files.layout import Root
from fluxdrop.jobs.claim import FAULT, NewJob
from fluxdrop.jobs.input_state import state_of
from fluxdrop.service.rewritten_jobs import RewrittenJobs
from support.fakes import job_of
from support.station import PATIENCE

LONG = "d" * 250 + "/" + "a" * 200


def followed(root: Root) -> RewrittenJobs:
    """Follows the jobs of *root* with short times."""
    settings = Settings(settle_seconds=0.05, incomplete_seconds=0.3)
    return RewrittenJobs(root.work, lambda: settings)


def settled(jobs: RewrittenJobs, is_so: Callable[[], object] = lambda: True) -> list[NewJob]:
    """Wait until a job has settled, or *is_so*."""
    deadline = time.monotonic() + PATIENCE
    taken: list[NewJob] = []
    while not taken and is_so():
        assert time.monotonic() < deadline
        taken = jobs.take_settled()
        time.sleep(0.01)
    return taken


@pytest.mark.parametrize("name", ["a.txt", f"{LONG}.txt"])
def test_waits_until_it_is_closed(root: Root, name: str) -> None:
    """An input waits for as long as its writer has it open, and is then taken in the state in which it was left."""
    job = job_of(root, name, b"a red")
    jobs = followed(root)
    with job.input.open("ab", buffering=0) as file:
        jobs.add(job.folder)
        for _ in range(10):
            file.write(b" circle")
            assert [] == jobs.take_settled()

    (taken,) = settled(jobs)

    assert (job.folder, state_of(job.input)) == (taken.folder, taken.state)
    assert taken.claim is not None
    assert not (job.folder / FAULT).exists()
    assert [] == jobs.take_settled()


def test_stays_incomplete(root: Root) -> None:
    """An input that was cut off by its writer is to fail for that reason."""
    job = job_of(root, "a.png", b"\x89PNG\r\n\x1a\n")
    jobs = followed(root)
    jobs.add(job.folder)

    (taken,) = settled(jobs)

    assert job.folder == taken.folder
    assert "before its IEND chunk" in (job.folder / FAULT).read_text()


def test_gone(root: Root) -> None:
    """What is no job any more is left to the admission."""
    job = job_of(root, "a.png", b"x")
    jobs = followed(root)
    jobs.add(job.folder)
    job.input.unlink()

    assert [NewJob(job.folder)] == jobs.take_settled()
