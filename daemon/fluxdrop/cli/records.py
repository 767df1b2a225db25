"""How jobs are printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from fluxdrop.jobs.store import Row

if TYPE_CHECKING:
    from fluxdrop.layout import Root


def row_as_dict(root: Root, row: Row) -> dict[str, Any]:
    """*row* for JSON; ``there`` says whether its record's file still is."""
    facts = row._asdict()
    del facts["inode"]
    facts["there"] = row.record is not None and (root.path / row.record).is_file()
    return facts


def print_rows(rows: Sequence[Row]) -> None:
    """Print *rows* as a table."""
    table = Table(box=None, pad_edge=False)
    for title in ("source", "state", "label", "p", "result"):
        table.add_column(title, overflow="fold")
    for row in rows:
        probability = "" if row.probability is None else f"{row.probability:.3f}"
        table.add_row(
            row.source, row.state, row.label or row.error or "", probability, row.record or ""
        )
    Console(markup=False, highlight=False).print(table)
