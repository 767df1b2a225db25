"""A file of several pictures becomes as many jobs, whatever interrupts it; and jobs that wait."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import pytest

from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.jobs.claim import read_claim
from fluxdrop.jobs.job import OPTIONS, JobOptions, Part, open_job
from fluxdrop.jobs.parts import divide, remove_if_undecided
from fluxdrop.service.stages.pending_jobs import PendingJobs
from support import jobs

PICTURES = [PromptParameters(prompt=f"prompt {number}", seed=number) for number in range(3)]


class KilledError(Exception):
    """Stands for SIGKILL."""


def found(root: Root) -> dict[str, tuple[str, Part | None, PromptParameters | None]]:
    """The input, the part and the parameters of each job in work/, by the end of its id."""
    opened = {folder.name: open_job(folder) for folder in root.work.iterdir()}
    return {
        name.partition("-")[2].partition("-")[2] or "1": (
            job.input.read_text(),
            job.options.part,
            job.options.generation,
        )
        for name, job in opened.items()
        if job is not None
    }


def test_divide(root: Root) -> None:
    """The job of the file makes the first picture, and new ones with the same input the others;
    doing it again makes no more."""
    job = jobs.job_in(jobs.claimed(root, "sub/cat.txt"))
    text = job.input.read_text()

    new = divide(job, PICTURES)

    assert [f"{job.id}-2", f"{job.id}-3"] == [part.folder.name for part in new]
    assert [] == divide(job, PICTURES) == divide(jobs.job_in(job.folder), PICTURES)
    assert {
        str(number): (text, Part(number=number, of=3, first=job.id), PICTURES[number - 1])
        for number in (1, 2, 3)
    } == found(root)
    assert {"sub/cat.txt"} == {jobs.job_in(folder).source for folder in root.work.iterdir()}


@pytest.mark.parametrize("call", range(20))
def test_killed_at_any_rename(root: Root, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Killed before any of its renames and writes, it ends in the same jobs when it is done again."""
    job = jobs.job_in(jobs.claimed(root, "cat.txt"))
    calls = iter(range(1000))
    real = {name: getattr(Path, name) for name in ("replace", "write_bytes", "mkdir")}

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
        divide(job, PICTURES)
    except KilledError:
        killed = True
    monkeypatch.undo()

    # As the next start does.
    left = [path for path in sorted(root.work.iterdir()) if not remove_if_undecided(path)]
    decided = len(left) == 3
    assert decided or [job.folder] == left
    divide(jobs.job_in(job.folder), PICTURES)

    assert {"1", "2", "3"} == set(found(root))
    assert [1, 2, 3] == sorted(part.number for _, part, _ in found(root).values() if part)
    assert killed or next(calls) <= call + 1


def test_full_disk(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that there is no room to divide leaves nothing that could become a job without it."""
    job = jobs.job_in(jobs.claimed(root, "cat.txt"))

    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fluxdrop.files.durable.sync_all", fail)
    with pytest.raises(OSError, match="No space"):
        divide(job, PICTURES)

    assert [job.folder] == list(root.work.iterdir())


def test_decided_and_not_synced(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """New jobs that were decided are not made again when the disk was full or away when syncing that decision."""
    job = jobs.job_in(jobs.claimed(root, "cat.txt"))
    second = root.work / f"{job.id}-2"
    real = durable.write

    def failing(path: Path, data: bytes) -> None:
        real(path, data)
        (second / "mark").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "write", failing)
    with pytest.raises(OSError, match="No space"):
        divide(job, PICTURES)
    monkeypatch.undo()
    new = divide(job, PICTURES)

    assert [second, root.work / f"{job.id}-3"] == [part.folder for part in new]
    assert (second / "mark").exists()


@pytest.mark.parametrize("source", ["sub/cat.txt", f"{'c' * 250}.txt"])
def test_claims_of_the_parts(root: Root, source: str) -> None:
    """What is told of the new jobs is what their folders hold, also where the input's name has no room for its path."""
    new = divide(jobs.job_in(jobs.claimed(root, source)), PICTURES)

    assert [part.claim for part in new] == [read_claim(part.folder) for part in new]
    assert None not in [part.claim for part in new]


def test_parts_without_the_first(root: Root) -> None:
    """When the first part's job has ended, the others stay jobs."""
    job = jobs.job_in(jobs.claimed(root, "cat.txt"))
    new = [part.folder for part in divide(job, PICTURES)]
    durable.remove_tree(job.folder)

    assert [False, False] == [remove_if_undecided(folder) for folder in new]
    assert all(folder.exists() for folder in new)


def test_model_of_a_replay(root: Root) -> None:
    """All parts are judged by the model that was asked for."""
    folder = jobs.claimed(root, "cat.txt")
    (folder / OPTIONS).write_bytes(msgspec.json.encode(JobOptions(replay_of="x", model="m")))
    divide(jobs.job_in(folder), PICTURES)

    asked = [jobs.job_in(folder).options for folder in root.work.iterdir()]

    assert [("x", "m")] * 3 == [(options.replay_of, options.model) for options in asked]


def test_begun_or_cancelled(root: Root) -> None:
    """A job that waits is either begun by its stage or cancelled, never both."""
    begun, gone = (jobs.job_in(jobs.claimed(root, "cat.txt")) for _ in range(2))
    waiting = PendingJobs()
    waiting.add(begun)
    waiting.add(gone)

    assert waiting.begin(begun)
    assert waiting.cancel(begun.id) is None
    assert gone is waiting.cancel(gone.id)
    assert waiting.cancel(gone.id) is None
    assert not waiting.begin(gone)
