"""How jobs are printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluxdrop.jobs.store import Row
    from fluxdrop.layout import Root

GONE = "gone"
"""What is said of a job that was done and whose result is no longer there."""


def is_there(root: Root, row: Row) -> bool:
    """Whether the record of *row* still is, and the picture beside a result."""
    if row.record is None:
        return False
    from fluxdrop.jobs.regular import is_file

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


def print_rows(root: Root, rows: Sequence[Row]) -> None:
    """Print *rows* as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("job", "state", "source", "label or reason", "p"):
        table.add_column(title, overflow="fold", no_wrap=title in ("job", "state", "p"))
    for row in rows:
        probability = "" if row.probability is None else f"{row.probability:.3f}"
        table.add_row(
            row.id, state_of(root, row), row.source, row.label or row.error or "", probability
        )
    Console(markup=False, highlight=False).print(table)
