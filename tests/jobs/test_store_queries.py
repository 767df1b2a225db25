"""What the index answers."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fluxdrop.jobs.store import JobFilter, Row, Store


def row(job: str, state: str = "claimed", **facts: object) -> Row:
    """A job in the index."""
    values = {"kind": "picture", "source": "cat.png", "created": "2026-01-01T00:00:00.000Z"}
    return Row(job, state, **{**values, **facts})  # type: ignore[arg-type]


def opened(folder: Path) -> closing[Store]:
    """An index of the test's own."""
    return closing(Store(folder / "jobs.sqlite3"))


FOUND = [
    row("20260101T000000-aaaa0000", "done", record="outputs/cat.json"),
    row("20260101T000000-aaaa1111", "done", record="outputs/20260101T000000-aaaa.json"),
    row("20260102T000000-bbbb0000", "done", record="outputs/sub/2.json"),
    row("20260102T000000-cccc0000", "failed", record="outputs/failed/cat.png.error.json"),
    row("20260103T000000-dddd0000", "done", record="outputs/2.json"),
]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("20260101T000000-aaaa0000", [0]),
        ("20260101T000000-aaaa", [1]),
        ("20260101", [0, 1]),
        ("cat", [0]),
        ("cat.png", [3]),
        ("2", [4]),
        ("sub/2", [2]),
        ("20260102T000000-c", [3]),
        ("nothing", []),
        ("%", []),
    ],
)
def test_find(tmp_path: Path, job: str, expected: list[int]) -> None:
    """A job is found by its id, else by its result's NAME, else by how its id begins."""
    with opened(tmp_path) as store:
        store.finished(FOUND)

        assert [FOUND[n] for n in expected] == store.find(job)


def test_by_inode(tmp_path: Path) -> None:
    """An input's inode finds the jobs that had it, the newest first, and none from before it was submitted."""
    days = ["2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z"]
    with opened(tmp_path) as store:
        store.claimed(row(f"job {day}", inode=7, created=day) for day in days)

        found = [
            store.by_inode(inode, since)
            for inode, since in [(7, ""), (7, "2026-01-02T00:00:00"), (7, "2026-01-03"), (8, "")]
        ]

    both = [f"job {day}" for day in reversed(days)]
    assert [both, both[:1], [], []] == [[job.id for job in jobs] for jobs in found]


@pytest.mark.parametrize(
    ("label", "expected"),
    [("red", "ba"), ("big red", "b"), ("big", ""), ("", ""), ("red\nbig red", "b"), ("r_d", "")],
)
def test_found_labels(tmp_path: Path, label: str, expected: str) -> None:
    """A job with several labels, a line each, is selected by any of them, and by no part of one."""
    with opened(tmp_path) as store:
        store.finished([row("a", "done", label="red"), row("b", "done", label="red\nbig red")])
        store.finished([row("c", "done")])

        assert expected == "".join(job.id for job in store.select(JobFilter(label=label)))


def test_latest(tmp_path: Path) -> None:
    """The jobs that ended last come first, of one state only."""
    with opened(tmp_path) as store:
        store.finished(row(f"{n}", "done", finished=f"2026-01-0{n}") for n in (2, 3, 1))
        store.finished([row("4", "failed", finished="2026-01-04")])

        assert ["3", "2"] == [job.id for job in store.latest("done", 2)]


SELECTED = [
    row("20260101T000000-a", "done", source="cat.png", label="round", model="old", record="x"),
    row(
        "20260102T000000-b",
        "failed",
        source="sub/cat.jpg",
        record="outputs/failed/dog-2.jpg.error.json",
    ),
    row("20260103T000000-c", "done", source="dog.png", label="round", model="new", replay_of="a"),
    row("20260104T000000-d", "done", source="a.txt", record="outputs/sub/cat.json"),
]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (JobFilter(), "dcba"),
        (JobFilter(state="done"), "dca"),
        (JobFilter(since=datetime(2026, 1, 2, tzinfo=UTC)), "dcb"),
        (JobFilter(since=datetime(2026, 1, 2, 0, 0, 1, tzinfo=UTC)), "dc"),
        (JobFilter(name="cat.*"), "a"),
        (JobFilter(name="*cat*"), "dba"),
        (JobFilter(name="sub/cat"), "d"),
        (JobFilter(name="*error*"), ""),
        (JobFilter(name="dog-2.jpg"), "b"),
        (JobFilter(label="round"), "ca"),
        (JobFilter(label="round", model="new"), "c"),
        (JobFilter(replays=False), "dba"),
        (JobFilter(model="%"), ""),
    ],
)
def test_select(tmp_path: Path, wanted: JobFilter, expected: str) -> None:
    """Jobs are chosen by all that is asked for, and come newest first."""
    with opened(tmp_path) as store:
        store.finished(SELECTED)

        assert expected == "".join(found.id[-1] for found in store.select(wanted))
        assert expected[:1] == "".join(found.id[-1] for found in store.select(wanted, 1))


def test_ended_between(tmp_path: Path) -> None:
    """The jobs of a state that ended at a moment or later, and before another, are counted."""
    with opened(tmp_path) as store:
        store.finished(row(f"{n}", "done", finished=f"2026-01-0{n}T00:00:00.000Z") for n in (1, 2))
        store.finished([row("3", "failed", finished="2026-01-03T00:00:00.000Z")])

        days = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)]
        done = [store.ended_between("done", day, days[3]) for day in days]
        first = store.ended_between("done", days[0], days[1])
        failed = store.ended_between("failed", days[2], days[3])

    assert ([2, 1, 0, 0], 1, 1) == (done, first, failed)
