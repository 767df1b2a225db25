"""Which jobs a filter selects."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fluxdrop.jobs.store import JobFilter
from support.indexes import opened, row

JOBS = [
    row("20260101T000000-aaaa0000", source="cat.png"),
    row("20260101T120000-aaaa0000", source="xray/cat.png"),
    row("20260102T000000-aaaa0000", source="xray/left/cat.png"),
    row("20260102T000000-bbbb0000", source="xray2/cat.png"),
]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (JobFilter(), [0, 1, 2, 3]),
        (JobFilter(until=datetime(2026, 1, 2, tzinfo=UTC)), [0, 1]),
        (JobFilter(since=datetime(2026, 1, 1, 12, tzinfo=UTC)), [1, 2, 3]),
        (JobFilter(folder="xray"), [1, 2]),
        (JobFilter(folder="xray/left/"), [2]),
        (JobFilter(folder="XRAY/Left"), [2]),
        (JobFilter(folder="x*"), []),
    ],
)
@pytest.mark.parametrize("page", [1, 3])
def test_each(tmp_path: Path, wanted: JobFilter, expected: list[int], page: int) -> None:
    """Jobs are read page by page, the oldest first, each once; a folder means what is in or below it."""
    with opened(tmp_path) as store:
        store.claimed(JOBS)

        assert [JOBS[n] for n in expected] == list(store.each(wanted, page))
        assert len(expected) == store.count(wanted)
