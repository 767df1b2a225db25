"""Print jobs as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from fluxdrop.files.layout import Root
from fluxdrop.jobs.row_facts import label_of, name_of, state_of
from fluxdrop.jobs.store import Row
from fluxdrop.printable import printable

_MIN_LAST_COLUMN = 20
"""Cells of the last column at least, on a terminal of 80: a reason takes fewer lines than its job's NAME."""


def print_rows(root: Root, rows: Sequence[Row]) -> None:
    """Print *rows* to stdout: id, state, source, NAME, and the best label with its probability, or the error."""
    table = Table(box=None, pad_edge=False)
    for title in ("job", "state"):
        table.add_column(title, no_wrap=True)
    for title in ("source", "name"):
        table.add_column(title, overflow="fold")
    table.add_column("label or reason", overflow="fold", min_width=_MIN_LAST_COLUMN)
    for row in rows:
        table.add_row(
            row.id, state_of(root, row), row.source, printable(name_of(row) or ""), _outcome(row)
        )
    Console(markup=False, highlight=False).print(table)


def _outcome(row: Row) -> str:
    label = label_of(row)
    if label is not None and row.probability is not None:
        return f"{label}  {row.probability:.3f}"
    return label or row.error or ""
