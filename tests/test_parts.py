"""A file of several pictures becomes as many jobs, whatever interrupts it; and jobs that wait."""

from __future__ import annotations

from pathlib import Path

import jobs
import pytest

from fluxdrop.generate.request import GenerationRequest
from fluxdrop.jobs.job import Part, open_job
from fluxdrop.jobs.parts import divide
from fluxdrop.layout import Root
from fluxdrop.service.waiting import Waiting

REQUESTS = [GenerationRequest(prompt=f"prompt {number}", seed=number) for number in range(3)]


class KilledError(Exception):
    """Stands for SIGKILL."""


def found(root: Root) -> dict[str, tuple[str, Part | None, GenerationRequest | None]]:
    """The input, the part and the request of each job in work/, by the end of its id."""
    opened = {folder.name: open_job(folder) for folder in root.work.iterdir()}
    return {
        name.partition("-")[2].partition("-")[2] or "1": (
            job.input.read_text(),
            job.request.part,
            job.request.generation,
        )
        for name, job in opened.items()
        if job is not None
    }


def test_divide(root: Root) -> None:
    """The job of the file makes the first picture, and new ones with the same input the others;
    doing it again makes no more."""
    job = jobs.job_in(jobs.claimed(root, "sub/cat.txt"))
    text = job.input.read_text()

    new = divide(job, REQUESTS)
    again = divide(jobs.job_in(job.folder), REQUESTS)

    assert [f"{job.id}-2", f"{job.id}-3"] == [folder.name for folder in new]
    assert [] == again
    assert {
        str(number): (text, Part(number=number, of=3, first=job.id), REQUESTS[number - 1])
        for number in (1, 2, 3)
    } == found(root)
    assert {"sub/cat.txt"} == {jobs.job_in(folder).source for folder in root.work.iterdir()}


@pytest.mark.parametrize("call", range(20))
def test_killed_at_any_rename(root: Root, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Killed before any of its renames and writes, it ends in the same jobs when it is done again."""
    job = jobs.job_in(jobs.claimed(root, "cat.txt"))
    calls = iter(range(1000))
    real = {name: getattr(Path, name) for name in ("rename", "replace", "write_bytes", "mkdir")}

    def dying(name: str) -> None:
        def method(self: Path, *arguments: object, **options: object) -> object:
            if next(calls) == call:
                raise KilledError
            return real[name](self, *arguments, **options)

        monkeypatch.setattr(Path, name, method)

    for name in real:
        dying(name)
    killed = False
    try:
        divide(job, REQUESTS)
    except KilledError:
        killed = True
    monkeypatch.undo()

    divide(jobs.job_in(job.folder), REQUESTS)

    assert {"1", "2", "3"} == set(found(root))
    assert [1, 2, 3] == sorted(part.number for _, part, _ in found(root).values() if part)
    assert killed or next(calls) <= call + 1


def test_begun_or_cancelled(root: Root) -> None:
    """A job that waits is either begun by its stage or cancelled, never both."""
    begun, gone = (jobs.job_in(jobs.claimed(root, "cat.txt")) for _ in range(2))
    waiting = Waiting()
    waiting.add(begun)
    waiting.add(gone)

    assert waiting.begin(begun)
    assert waiting.cancel(begun.id) is None
    assert gone is waiting.cancel(gone.id)
    assert waiting.cancel(gone.id) is None
    assert not waiting.begin(gone)
