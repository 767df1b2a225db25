"""Print jobs as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from fluxdrop.files.layout import Root
from fluxdrop.jobs.row_facts import state_of
from fluxdrop.jobs.store import Row


def print_rows(root: Root, rows: Sequence[Row]) -> None:
    """Print *rows* to stdout: id, state, source, best label or error, and probability."""
    table = Table(box=None, pad_edge=False)
    for title in ("job", "state", "source", "label or reason", "p"):
        table.add_column(title, overflow="fold", no_wrap=title in ("job", "state", "p"))
    for row in rows:
        probability = "" if row.probability is None else f"{row.probability:.3f}"
        table.add_row(
            row.id, state_of(root, row), row.source, row.label or row.error or "", probability
        )
    Console(markup=False, highlight=False).print(table)
