"""Which jobs the daemon may have died over, and how its deaths are counted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.jobs import crash_suspects
from fluxdrop.jobs.crash_suspects import CrashSuspects, Died, count_deaths, deaths
from fluxdrop.jobs.job import Job
from support.jobs import claimed, job_in


def jobs_of(root: Root, count: int) -> list[Job]:
    """So many claimed jobs."""
    return [job_in(claimed(root, f"{number}.png")) for number in range(count)]


def die_over(root: Root, *jobs: Job, stage: crash_suspects.SuspectStage = "preprocess") -> None:
    """Leave what a daemon leaves that dies over *jobs*."""
    made = CrashSuspects(root, stage)
    with suppress(KeyboardInterrupt), made.over(jobs):
        left = (root.state / f"in-{stage}").read_bytes()
        raise KeyboardInterrupt
    made.close()
    (root.state / f"in-{stage}").write_bytes(left)


def counted(*jobs: Job) -> list[int]:
    """How many deaths each of *jobs* has."""
    found = [deaths(job.folder) for job in jobs]
    return [died.deaths if died else 0 for died in found]


def test_deaths_over_jobs(root: Root) -> None:
    """A death counts over each job that was in hand, in that stage, and over no other."""
    one, two, other = jobs_of(root, 3)
    die_over(root, one, two)
    count_deaths(root)
    die_over(root, two, stage="predict")
    count_deaths(root)

    assert [Died("preprocess", 1), Died("preprocess", 1), None] == [
        deaths(job.folder) for job in (one, two, other)
    ]


def test_three_daemons(root: Root) -> None:
    """Each daemon that dies over a job is one death more."""
    (job,) = jobs_of(root, 1)
    found = []
    for _ in range(3):
        die_over(root, job)
        count_deaths(root)
        found += counted(job)

    assert [1, 2, 3] == found


def test_several_threads(root: Root) -> None:
    """What several threads have in hand at once is named together, and each ends its part alone."""
    one, other = jobs_of(root, 2)
    made = CrashSuspects(root, "predict")
    first, second = made.over([one]), made.over([other])
    seen = []
    first.__enter__()
    second.__enter__()
    seen.append((root.state / "in-predict").read_text().split()[1:])
    first.__exit__(None, None, None)
    seen.append((root.state / "in-predict").read_text().split()[1:])
    second.__exit__(None, None, None)
    seen.append((root.state / "in-predict").read_text().split()[1:])
    made.close()

    assert [[one.id, other.id], [other.id], []] == seen


def test_nothing_in_hand(root: Root) -> None:
    """A daemon that ends with nothing in hand, or was never there, is no death; nor is one that comes through."""
    (job,) = jobs_of(root, 1)
    count_deaths(root)
    made = CrashSuspects(root, "preprocess")
    with made.over([job]):
        inside = (root.state / "in-preprocess").read_bytes().split()[1:]
    made.close()
    count_deaths(root)

    assert ([os.fsencode(job.id)], [0]) == (inside, counted(job))


def test_suspect_that_comes_through(root: Root) -> None:
    """A job that comes through in the end has no death left; one that does not raise but was no suspect has
    nothing to lose."""
    (job,) = jobs_of(root, 1)
    die_over(root, job)
    count_deaths(root)
    before = counted(job)
    job.suspect = True
    made = CrashSuspects(root, "preprocess")
    with made.over([job]):
        pass
    made.close()

    assert ([1], [0]) == (before, counted(job))


def test_counting_again(root: Root) -> None:
    """What is counted is not counted again, however often the count is made."""
    made = jobs_of(root, 3)
    die_over(root, *made)
    for _ in range(3):
        count_deaths(root)

    assert [1, 1, 1] == counted(*made)


class Full:
    """A disk that has no room for whatever comes behind the first *room* writes and truncations of `count_deaths`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.left = room
        self._torn = False
        opened = os.fdopen
        real = durable.open_own
        disk = self

        class File:
            def __init__(self, file: Any) -> None:
                self._file = file

            def __enter__(self) -> File:
                return self

            def __exit__(self, *_error: object) -> None:
                self._file.close()

            def truncate(self, size: int) -> None:
                self._file.truncate(size)

            def write(self, data: bytes) -> None:
                try:
                    disk.take()
                except OSError:
                    self._file.write(data[: len(data) // 2])
                    raise
                self._file.write(data)

        def fdopen(fd: int, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            file = opened(fd, mode, *arguments, **options)
            return File(file) if mode == "ab" else file

        def open_own(path: Path, flags: int) -> int:
            if flags & os.O_TRUNC:
                self.take()
            return real(path, flags)

        monkeypatch.setattr(os, "fdopen", fdopen)
        monkeypatch.setattr(durable, "open_own", open_own)

    def take(self) -> None:
        """Take one thing more. Raises OSError."""
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("room", range(4))
def test_full_disk(root: Root, room: int) -> None:
    """Wherever a full disk ends the count, also in the middle of a mark, three tries are one death for each job."""
    made = jobs_of(root, 3)
    die_over(root, *made)
    refused = 0
    with pytest.MonkeyPatch.context() as monkeypatch:
        disk = Full(monkeypatch, room)
        for _ in range(3):
            disk.left = room
            try:
                count_deaths(root)
            except OSError:
                refused += 1
    count_deaths(root)

    assert [1, 1, 1] == counted(*made)
    assert refused > 0


@pytest.mark.parametrize(
    ("mark", "expected"),
    [
        (b"", 1),
        (b"torn", 1),
        (b"a-life\n", 2),
        (b"a-life\ntorn", 2),
        (b"one\ntwo\n", 3),
        (b"\0\0\0\0", 1),
        (b"\xff\xfe\n", 2),
    ],
)
def test_torn_mark(root: Root, mark: bytes, expected: int) -> None:
    """A mark counts its whole lines; the torn end that a kill or a power cut left counts for nothing."""
    (job,) = jobs_of(root, 1)
    (job.folder / "in-preprocess").write_bytes(mark)
    die_over(root, job)
    count_deaths(root)

    assert [expected] == counted(job)


def rubbish(job: Job) -> dict[str, bytes]:
    """What may lie in the file of a stage after a power cut."""
    return {
        "empty": b"",
        "blank": b"\n" * 40,
        "zeros": bytes(4096),
        "torn id": f"life\n{job.id[:-1]}".encode(),
        "no text": b"\xff\xfe\n\x80",
        "elsewhere": b"life\n..\n.\n/\n../../outputs\n",
        "life alone": b"life\n",
    }


@pytest.mark.parametrize(
    "name", ["empty", "blank", "zeros", "torn id", "no text", "elsewhere", "life alone"]
)
def test_rubbish_in_the_file(root: Root, name: str) -> None:
    """Whatever a power cut left of the file only names what is there: it counts for no job and makes no file."""
    (job,) = jobs_of(root, 1)
    (root.state / "in-preprocess").write_bytes(rubbish(job)[name])
    before = set(root.path.rglob("*"))
    count_deaths(root)

    assert ([0], before) == (counted(job), set(root.path.rglob("*")))


def test_blank_again(root: Root) -> None:
    """Whether the body comes through or raises, nothing is in danger behind it, also where more were before."""
    made = jobs_of(root, 5)
    record = CrashSuspects(root, "predict")
    bodies: list[tuple[list[Job], Callable[[], object]]] = [
        (made, lambda: None),
        (made[:1], lambda: None),
        (made[:2], lambda: int("no number")),
    ]
    for jobs, body in bodies:
        with suppress(ValueError), record.over(jobs):
            body()
    record.close()
    count_deaths(root)

    assert [0] * 5 == counted(*made)


def test_full_disk_behind_the_body(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs whose names a full disk kept in the file are not in danger with those that come after them."""
    *before, after = jobs_of(root, 5)
    record = CrashSuspects(root, "predict")
    real = os.pwrite

    def refusing(fd: int, data: bytes, offset: int) -> int:
        if not data.strip():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", refusing)
    for jobs in (before, [after]):
        with suppress(OSError), record.over(jobs):
            named = (root.state / "in-predict").read_bytes().split()[1:]
    record.close()

    assert [os.fsencode(after.id)] == named


def test_error_of_three_deaths(root: Root) -> None:
    """Why a job is not tried once more names its file and how often the daemon died, as a crash."""
    (job,) = jobs_of(root, 1)
    error = Died("preprocess", 3).error(job)

    assert "crash" == error.kind
    assert "0.png was in hand each time when the daemon died, 3 times in a row." == error.message


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize("put", [fifo, link, sparse, Path.mkdir])
def test_mark_that_is_none(root: Root, put: Callable[[Path], None]) -> None:
    """Whatever a restored folder has in a mark's place, it says nothing, and deaths are counted from then on."""
    (job,) = jobs_of(root, 1)
    put(job.folder / "in-preprocess")
    before = counted(job)
    for _ in range(2):
        die_over(root, job)
        count_deaths(root)

    assert ([0], [2]) == (before, counted(job))


def test_folder_that_is_a_link(root: Root, tmp_path: Path) -> None:
    """A symlink in work/ leads the count nowhere."""
    (job,) = jobs_of(root, 1)
    die_over(root, job)
    job.folder.rename(tmp_path / "elsewhere")
    job.folder.symlink_to(tmp_path / "elsewhere")
    count_deaths(root)

    assert not (tmp_path / "elsewhere/in-preprocess").exists()
