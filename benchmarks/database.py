"""The index with 1,000,000 jobs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.table import Row, seconds
from fluxdrop.files.layout import Root
from fluxdrop.jobs import store
from fluxdrop.jobs.overview import overview
from fluxdrop.jobs.row_facts import row_as_dict
from fluxdrop.jobs.store import JobFilter, Store

_FEW, _MANY = 1_000, 1_000_000
_TIMES = 200
_LISTED = 20


def rows() -> Iterator[Row]:
    """What `fluxdrop status` and `fluxdrop jobs` ask, and what a claim enters."""
    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as many:
        small, large = _filled(few, _FEW), _filled(many, _MANY)
        for what, work in {
            "status of 1,000,000 jobs": lambda: overview(large),
            "jobs of 1,000,000": lambda: _list(large, JobFilter()),
            "jobs --state failed of 1,000,000": lambda: _list(large, JobFilter("failed")),
            "jobs --label of 1,000,000": lambda: _list(large, JobFilter(label="round")),
        }.items():
            asked = seconds(work, 20) * 1000
            yield Row(what, "<= 20", asked, "ms", asked <= 20)
        with closing(Store(small.database)) as first, closing(Store(large.database)) as second:
            before, after = _claim(first, _FEW), _claim(second, _MANY)
        milliseconds = after * 1000
        yield Row("next claim with 1,000,000 jobs", "<= 20", milliseconds, "ms", milliseconds <= 20)
        ratio = after / before
        yield Row("the same against 1,000 jobs", "<= 1.5", ratio, "x", ratio <= 1.5)


def _filled(folder: str, count: int) -> Root:
    root = Root(Path(folder))
    root.create()
    with closing(Store(root.database)) as index:
        index.fill(_row(number) for number in range(count))
    return root


def _list(root: Root, wanted: JobFilter) -> None:
    with closing(Store(root.database, read_only=True)) as index:
        for row in index.select(wanted, _LISTED):
            row_as_dict(root, row)


def _claim(index: Store, first: int) -> float:
    numbers = iter(range(first, first + _TIMES))

    def claim() -> None:
        row = _row(next(numbers))._replace(state="claimed", finished=None, record=None)
        index.claimed([row])
        index.begin_attempt([row.id])

    return seconds(claim, _TIMES)


def _row(number: int) -> store.Row:
    moment = f"2026-01-01T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}.000Z"
    return store.Row(
        id=f"20260101T000000-{number:08x}",
        state="done",
        kind="picture",
        source=f"{number}.png",
        inode=number,
        created=moment,
        finished=moment,
        record=f"outputs/{number}.json",
        label="round",
        probability=0.9,
        model="round-or-angular",
    )
