"""Which jobs of the index to select."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from fluxdrop.files.folder_key import folder_key
from fluxdrop.files.layout import FAILED
from fluxdrop.jobs.schema import State


class JobFilter(NamedTuple):
    """Which jobs to select: those that match every field; None matches any."""

    state: State | None = None
    since: datetime | None = None
    """The earliest time of the claim."""
    name: str | None = None
    """A glob for the input's path below inbox/ or the result's NAME; ``*`` also matches slashes."""
    label: str | None = None
    model: str | None = None
    replays: bool = True
    """Whether to include replays of other jobs."""
    until: datetime | None = None
    """The time before which it was claimed."""
    host: str | None = None
    """The host that made the picture."""
    folder: str | None = None
    """The folder below inbox/ in which, or below which, the input was dropped; see `folder_key`."""

    def includes(self, job_id: str) -> bool:
        """Return whether the job *job_id* was claimed at `since` or later."""
        return self.since is None or job_id >= _first_id(self.since)

    def condition(self) -> tuple[str, list[str]]:
        """Return the filter as an SQL expression, and the values for its placeholders."""
        terms: list[tuple[str, list[str]]] = []
        if self.since is not None:
            terms.append(("id >= ?", [_first_id(self.since)]))
        if self.until is not None:
            terms.append(("id < ?", [_first_id(self.until)]))
        if self.folder is not None:
            start = folder_key(f"{self.folder.strip('/')}/")
            terms.append(("substr(folder_key(source), 1, length(?)) = ?", [start, start]))
        if self.name is not None:
            named = (
                "(source GLOB ? OR (state = 'done' AND record GLOB ?)"
                " OR (state = 'failed' AND record GLOB ?))"
            )
            terms.append((named, [self.name, *records_named(self.name)]))
        if self.label is not None:
            # Of a multi-label answer, the row has each found label on a line.
            term = "instr(char(10) || label || char(10), char(10) || ? || char(10))"
            terms.append((term, [self.label]))
        for column in ("state", "model", "host"):
            value = getattr(self, column)
            if value is not None:
                # Most jobs are done: going back by id (`+` disables the index) finds some sooner than sorting.
                name = f"+{column}" if value == "done" else column
                terms.append((f"{name} = ?", [value]))
        if not self.replays:
            terms.append(("replay_of IS NULL", []))
        where = " AND ".join(term for term, _ in terms) or "1"
        return where, [value for _, values in terms for value in values]


def records_named(name: str) -> tuple[str, str]:
    """Return the path of the record for *name* if the job is done, and if it failed."""
    return f"outputs/{name}.json", f"outputs/{FAILED}/{name}.error.json"


def _first_id(moment: datetime) -> str:
    """Return what the ids of jobs that were claimed at *moment* begin with; later ids are greater."""
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%S}"
