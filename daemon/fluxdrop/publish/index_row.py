"""The row of the index for a job that has ended."""

from __future__ import annotations

from fluxdrop.jobs.store import Row
from fluxdrop.records.result import Failure, Record, Result


def row_of(record: Record, path: str) -> Row:
    """Return the row of the index for *record*, whose JSON lies at *path* below the root."""
    best = record.top[0] if isinstance(record, Result) and record.top else None
    return Row(
        id=record.job_id,
        state="done" if isinstance(record, Result) else "failed",
        kind=record.source.kind,
        source=record.source.file,
        attempts=record.attempts,
        replay_of=record.replay_of,
        created=record.created,
        finished=record.finished,
        record=path,
        label=best.label if best else None,
        probability=best.p if best else None,
        error=record.error.message if isinstance(record, Failure) else None,
        model=record.model.bundle if isinstance(record, Result) else None,
    )
