"""What commands show of a job in the index."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from fluxdrop.files.layout import FAILED, Root
from fluxdrop.files.regular import is_file
from fluxdrop.jobs.store import Row
from fluxdrop.picture_formats import PICTURE_SUFFIXES

GONE = "gone"
"""The state that is shown for a job that is done and whose result no longer exists."""


def is_there(root: Root, row: Row) -> bool:
    """Return whether the record of *row* exists and, for a result, the picture beside it."""
    if row.record is None:
        return False
    record = root.path / row.record
    return is_file(record) and (row.state != "done" or has_picture(root, row))


def has_picture(root: Root, row: Row) -> bool:
    """Return whether the picture of the result of *row* exists.

    It has the suffix of the dropped picture, or ``.png`` if it was generated or converted by an earlier fluxdrop.
    """
    if row.record is None:
        return False
    record = root.path / row.record
    suffix = PurePosixPath(row.source).suffix
    suffixes = {".png"} | ({suffix} if suffix.lower() in PICTURE_SUFFIXES else set())
    return any(is_file(record.with_suffix(suffix)) for suffix in suffixes)


def name_of(row: Row) -> str | None:
    """Return the NAME of the result of *row*, or of the input of a failed one; None before it has ended."""
    if row.record is None:
        return None
    if row.state == "failed":
        return row.record.removeprefix(f"outputs/{FAILED}/").removesuffix(".error.json")
    return row.record.removeprefix("outputs/").removesuffix(".json")


_MAX_LABELS = 5


def label_of(row: Row) -> str | None:
    """Return the label of *row* for a list: of a multi-label answer, the most probable ones; or the value."""
    if row.label is None:
        return None
    labels = row.label.split("\n")
    return ", ".join(labels[:_MAX_LABELS] + (["..."] if len(labels) > _MAX_LABELS else []))


def row_as_dict(root: Root, row: Row) -> dict[str, Any]:
    """Return *row* for JSON, with its NAME; ``there`` is whether its files exist (`is_there`)."""
    facts = row._asdict()
    del facts["inode"]
    facts["label"] = label_of(row)
    facts["labels"] = row.label.split("\n") if row.label is not None else []
    facts["name"] = name_of(row)
    facts["there"] = is_there(root, row)
    return facts


def state_of(root: Root, row: Row) -> str:
    """Return the state to show for *row*: ``gone`` instead of ``done`` if its result no longer exists."""
    return GONE if row.state == "done" and not is_there(root, row) else row.state
