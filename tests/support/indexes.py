"""Rows of the index, and an index of the test's own."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from fluxdrop.jobs.store import Row, Store


def row(job: str, state: str = "claimed", **facts: object) -> Row:
    """The job *job* as the index has it."""
    values = {"kind": "picture", "source": "cat.png", "created": "2026-01-01T00:00:00.000Z"}
    return Row(job, state, **{**values, **facts})  # type: ignore[arg-type]


def opened(folder: Path, *, read_only: bool = False) -> closing[Store]:
    """The index in *folder*."""
    return closing(Store(folder / "jobs.sqlite3", read_only=read_only))
