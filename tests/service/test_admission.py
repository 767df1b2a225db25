"""Which claimed jobs are admitted, in which order, with real claims, index and plans, and stages of the tests' own."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from fluxdrop.files.layout import Root
from fluxdrop.jobs.claim import Claim, NewJob
from fluxdrop.jobs.job import OPTIONS, Job, open_job
from fluxdrop.jobs.store import Store
from fluxdrop.publish.plans import Plan
from fluxdrop.service import admission
from support.admissions import Bench
from support.fakes import full
from support.jobs import job_in
from support.stages import Once
from support.station import events


@pytest.fixture
def bench(root: Root) -> Iterator[Bench]:
    """A bench with an index of its own."""
    with closing(Store(root.database)) as store:
        yield Bench(root, store)


def test_taken_on(bench: Bench) -> None:
    """Claims are admitted in their order, and the index knows them by then; they are in hand until they end."""
    seen: list[int] = []

    def accept(job: Job) -> None:
        seen.append(bench.store.counts()["claimed"])
        bench.stages.accepted.append(job)

    bench.stages.accept = accept
    made = bench.add("b.png", "a.txt", "c.png")
    bench.admission.admit()
    busy = [bench.admission.busy]
    for job in made:
        bench.admission.remove(job.id)
        busy.append(bench.admission.busy)

    assert (["b.png", "a.txt", "c.png"], [3, 3, 3]) == (bench.admitted, seen)
    assert [True, True, True, False] == busy


@pytest.mark.parametrize(("suffix", "most"), [(".txt", 16), (".png", 3)])
def test_room(bench: Bench, suffix: str, most: int) -> None:
    """Prompts and pictures have room of their own: so many wait or are in hand, and each end makes room for one."""
    is_prompt = suffix == ".txt"
    made: list[Job] = []
    while bench.admission.has_room(is_prompt) and len(made) < 99:
        made += bench.add(f"{len(made)}{suffix}")
        if len(made) % 2:
            bench.admission.admit()
    bench.admission.admit()
    other = bench.admission.has_room(not is_prompt)
    before = bench.admission.has_room(is_prompt)
    bench.admission.remove(made[0].id)

    assert (most, True, False) == (len(made), other, before)
    assert bench.admission.has_room(is_prompt)


def test_state_that_is_away(bench: Bench) -> None:
    """While the root's state is away nothing is admitted and there is no room; then all is as before."""
    bench.add("a.png")
    bench.is_root_available = False
    bench.admission.admit()
    away = [*bench.admitted], bench.admission.has_room(True), bench.admission.has_room(False)
    bench.is_root_available = True
    bench.admission.admit()

    assert ([], False, False) == away
    assert (["a.png"], True) == (bench.admitted, bench.admission.has_room(False))


def test_suspects_first_and_alone(bench: Bench) -> None:
    """What the daemon may have died of is admitted first, each with nothing else in hand; until all of it has ended
    nothing more is claimed."""
    made = bench.claim("a.png", "b.png", "c.png", "d.txt")
    bench.die_over(made[1], made[3])
    bench.admission.recover()
    steps = []
    for _ in range(3):
        bench.admission.admit()
        bench.admission.admit()
        names = sorted(bench.admitted)
        steps.append((names, bench.admission.has_room(True)))
        for job in bench.stages.accepted:
            bench.admission.remove(job.id)
    suspects = sorted(job.source for job in bench.stages.accepted if job.suspect)

    first = steps[0][0]
    assert ([1, 2, 4], ["b.png", "d.txt"]) == ([len(names) for names, _ in steps], suspects)
    assert first[0] in suspects
    assert (["b.png", "d.txt"], [False, False, True]) == (steps[1][0], [room for _, room in steps])


def test_suspect_that_cannot_be_read(bench: Bench) -> None:
    """A suspect that is left alone, as its options are rubbish, holds up nothing."""
    made = bench.claim("a.png", "b.png")
    (made[0].folder / OPTIONS).write_bytes(b"rubbish")
    bench.die_over(made[0])
    bench.admission.recover()
    bench.admission.admit()
    bench.admission.admit()

    assert (["b.png"], True) == (bench.admitted, bench.admission.has_room(True))


def test_three_deaths(bench: Bench) -> None:
    """A job over which three daemons died is not tried again, but fails, with its attempts; the others are done."""
    made = bench.add("a.png", "b.png")
    bench.admission.admit()
    for _ in range(3):
        bench.store.begin_attempt([made[0].id])
    bench.die_over(made[0], times=3)
    bench.restart()
    bench.admission.recover()
    bench.admission.admit()
    bench.admission.remove(made[0].id)
    bench.admission.admit()

    ((job, stage, error),) = bench.stages.refused
    assert ("a.png", 3, "preprocess", "crash") == (job.source, job.attempts, stage, error.kind)
    assert ["b.png"] == bench.admitted


@pytest.mark.parametrize("options_json", [b"", b"{", b'{"unknown": 1}', b"\xff"])
def test_options_that_cannot_be_read(
    bench: Bench, caplog: pytest.LogCaptureFixture, options_json: bytes
) -> None:
    """A claim whose options are rubbish is left alone with a line in the log, and takes no room; the others are
    admitted."""
    made = bench.add("a.png", "b.png", "c.png")
    (made[1].folder / OPTIONS).write_bytes(options_json)
    bench.admission.admit()
    for job in (made[0], made[2]):
        bench.admission.remove(job.id)

    assert (["a.png", "c.png"], ["left alone"]) == (bench.admitted, events(caplog))
    assert (True, False) == (made[1].input.exists(), bench.admission.busy)


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "Permission denied"), full(), ValueError("rubbish")]
)
def test_claim_that_cannot_be_opened(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A claim that cannot be opened holds up no other; where that passes it is admitted when it has passed."""
    made = bench.add("a.png", "b.png", "c.png")
    fail = Once(error)

    def failing(folder: Path, claim: Claim | None) -> Job | None:
        if folder == made[1].folder:
            fail()
        return open_job(folder, claim)

    monkeypatch.setattr(admission, "open_job", failing)
    with suppress(OSError):
        bench.admission.admit()
    first = [*bench.admitted]
    bench.admission.admit()

    assert ["a.png", "c.png"] == first
    assert [*first, *["b.png"] * isinstance(error, OSError)] == bench.admitted


def test_folder_without_input(bench: Bench) -> None:
    """A claim that never came to be is removed, and is no job."""
    (job,) = bench.add("a.png")
    job.input.unlink()
    bench.admission.admit()

    assert ([], False) == (bench.admitted, bench.admission.busy)
    assert not job.folder.exists()


@pytest.mark.parametrize(
    "error", [full(), sqlite3.OperationalError("database is locked"), MemoryError()]
)
@pytest.mark.parametrize("owner", ["index", "stages"])
def test_admission_that_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception, owner: str
) -> None:
    """Whatever keeps jobs from being admitted, none is lost and none is admitted twice: all are admitted in their order
    when it is over."""
    bench.add("a.png", "b.png", "c.png")
    if owner == "index":
        fail, real = Once(error, error), bench.store.claimed

        def claimed(rows: Any) -> None:
            fail()
            real(rows)

        monkeypatch.setattr(bench.store, "claimed", claimed)
    else:
        calls = iter(range(99))

        def accept(job: Job) -> None:
            if next(calls) in (1, 2):
                raise error
            bench.stages.accepted.append(job)

        bench.stages.accept = accept
    for _ in range(2):
        with pytest.raises(type(error)):
            bench.admission.admit()
    bench.admission.admit()
    for job in bench.stages.accepted:
        bench.admission.remove(job.id)

    assert (["a.png", "b.png", "c.png"], False) == (bench.admitted, bench.admission.busy)


def test_cancel(bench: Bench) -> None:
    """Of the jobs that an order names those are cancelled that are in hand: no other job, and no path."""
    made = bench.add("a.png", "b.txt", "c.png")
    bench.admission.admit()
    bench.admission.remove(made[2].id)
    bench.admission.cancel([made[2].id, made[1].id, "../..", "", made[0].id])

    assert [made[1].id, made[0].id] == bench.stages.cancelled


def test_claimed_again(bench: Bench) -> None:
    """A job whose names were taken meanwhile is admitted again, with what the index knows of it."""
    (job,) = bench.add("a.png")
    bench.admission.admit()
    bench.store.begin_attempt([job.id])
    bench.admission.add(NewJob(job.folder))
    bench.admission.admit()
    bench.admission.remove(job.id)

    row = bench.store.get(job.id)
    assert row is not None
    assert (["a.png"] * 2, 1, False) == (bench.admitted, row.attempts, bench.admission.busy)
    assert job_in(job.folder).source == "a.png"


def fifo_for_mark(bench: Bench, job: Job) -> None:
    os.mkfifo(job.folder / "in-preprocess")


def link_for_folder(bench: Bench, job: Job) -> None:
    (bench.root.work / "20260101T000000-aaaaaaaa").symlink_to("/etc")


def files_for_folders(bench: Bench, job: Job) -> None:
    (bench.root.work / "20260101T000000-aaaaaaaa").touch()
    os.mkfifo(bench.root.work / "20260101T000000-bbbbbbbb")


def folder_for_record(bench: Bench, job: Job) -> None:
    job.record.mkdir()
    bench.stages.publisher._plans.decide({job.id: Plan(links=[], record="outputs/a.json")})


ODD = [fifo_for_mark, link_for_folder, files_for_folders, folder_for_record]


@pytest.mark.parametrize("spoil", ODD)
def test_odd_folders(bench: Bench, spoil: Callable[[Bench, Job], None]) -> None:
    """Whatever a careless restore left in work/, the claims there are admitted."""
    made = bench.claim("a.png", "b.png")
    spoil(bench, made[0])
    bench.admission.recover()
    bench.admission.admit()

    assert ["a.png", "b.png"] == sorted(bench.admitted)


@pytest.mark.parametrize("error", [OSError(errno.EINVAL, "odd"), KeyError("odd")])
@pytest.mark.parametrize("part", ["remove_if_ended", "planned and withdraw"])
def test_folder_that_nobody_can_use(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, part: str, error: Exception
) -> None:
    """A folder in work/ that cannot be dealt with is left alone, stays in the index, and keeps no other from being
    admitted."""
    made = bench.add("a.png", "b.png")
    bench.admission.admit()
    bench.restart()
    publisher = bench.stages.publisher

    def fail(folders: Any) -> Any:
        if made[0].folder in (folders if isinstance(folders, list) else [folders]):
            raise error
        return False

    if part == "remove_if_ended":
        monkeypatch.setattr(publisher, "remove_if_ended", fail)
    else:
        made[0].record.write_bytes(b"{}")
        publisher._plans.decide({made[0].id: Plan(links=[], record="outputs/a.json")})
        monkeypatch.setattr(bench.stages, "publish_planned", fail)
        monkeypatch.setattr(publisher, "withdraw", fail)
    bench.admission.recover()
    bench.admission.admit()

    assert ["b.png"] == bench.admitted
    assert (2, True) == (bench.store.counts()["claimed"], made[0].input.exists())
