"""The row of the index for a job that has ended."""

from __future__ import annotations

from fluxdrop.jobs.store import Row
from fluxdrop.records.result import Failure, Record, Result
from fluxdrop.records.short_answer import labels_of, value_text


def row_of(record: Record, path: str) -> Row:
    """Return the row of the index for *record*, whose JSON lies at *path* below the root.

    Its label is the class, or the found labels on a line each, or the values in a few words.
    """
    done = record if isinstance(record, Result) else None
    label = "\n".join(labels_of(done)) or value_text(done) if done else ""
    best = done.top[0] if done and done.top and label else None
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
        label=label or None,
        probability=best.p if best else None,
        error=record.error.message if isinstance(record, Failure) else None,
        model=done.model.bundle if done else None,
        host=done.generator.host if done and done.generator else None,
    )
