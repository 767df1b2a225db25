"""An index that a crash, a restore or a person damaged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.store import JobFilter
from support.indexes import opened, row

MISSING = ["DROP TABLE jobs", "DROP TABLE counts", "ALTER TABLE jobs DROP COLUMN model"]
NO_JOBS = [
    "UPDATE jobs SET source = x'ff'",
    "UPDATE jobs SET record = x'ff'",
    "UPDATE jobs SET probability = 'much'",
    "UPDATE jobs SET attempts = 'many'",
]


@pytest.mark.parametrize(
    ("change", "read_only"),
    [*((change, True) for change in MISSING + NO_JOBS), *((change, False) for change in NO_JOBS)],
)
def test_index_that_is_none(tmp_path: Path, change: str, read_only: bool) -> None:
    """An index that lacks a table or has a row that is not a job's is refused in a sentence that says what to do; but
    the daemon moves one that lacks a table aside (tests/jobs/test_store.py)."""
    with opened(tmp_path) as store:
        store.fill([row("a", "done", record="outputs/cat.json")])
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as db:
        db.executescript("DROP INDEX IF EXISTS jobs_by_model;" + change)

    with (
        pytest.raises(
            FluxdropError, match=r"jobs\.sqlite3 (cannot be used|has a row that is not a job)"
        ) as caught,
        opened(tmp_path, read_only=read_only) as store,
    ):
        store.get("a")
    assert "move it away" in caught.value.hint


def test_damage_that_is_met_while_reading(tmp_path: Path) -> None:
    """What SQLite says of a damaged page is a refusal for whoever only reads."""
    with opened(tmp_path) as store:
        store.fill(row(f"{number:06}", "done", error="x" * 500) for number in range(200))
    path = tmp_path / "jobs.sqlite3"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size - size // 2))

    with (
        pytest.raises(FluxdropError, match=r"jobs\.sqlite3 cannot be used"),
        opened(tmp_path, read_only=True) as store,
    ):
        store.select(JobFilter())
