"""What commands say of a job."""

from __future__ import annotations

from typing import Any

from fluxdrop.jobs.regular import is_file
from fluxdrop.jobs.store import Row
from fluxdrop.layout import Root

GONE = "gone"
"""What is said of a job that was done and whose result is no longer there."""


def is_there(root: Root, row: Row) -> bool:
    """Whether the record of *row* still is, and the picture beside a result."""
    if row.record is None:
        return False
    record = root.path / row.record
    picture = record.with_suffix(".png")
    return is_file(record) and (row.state != "done" or is_file(picture))


def row_as_dict(root: Root, row: Row) -> dict[str, Any]:
    """*row* for JSON; ``there`` says whether its files still are."""
    facts = row._asdict()
    del facts["inode"]
    facts["there"] = is_there(root, row)
    return facts


def state_of(root: Root, row: Row) -> str:
    """What is to be said of *row*: never done of a result that is gone."""
    return GONE if row.state == "done" and not is_there(root, row) else row.state
