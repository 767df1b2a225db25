"""Print jobs as a table."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from fluxdrop.files.layout import Root
from fluxdrop.jobs.row_facts import label_of, name_of, state_of
from fluxdrop.jobs.store import Row
from fluxdrop.printable import printable

_TITLES = ("job", "host", "state", "source", "name", "label or reason")
_GAP = 2
_MAX_HOST = 16
_MIN_LAST_COLUMN = 20
"""Cells of the last column at least: a reason takes fewer lines than its job's NAME."""
_MIN_NAME = 4
_UNLIMITED = 1_000_000


def print_rows(root: Root, rows: Sequence[Row]) -> None:
    """Print *rows* to stdout: id, state, source, NAME, and the best label with its probability, or the error.

    If a host of a cluster made one of the pictures, the hosts are a column, too.
    """
    with_host = any(row.host for row in rows)
    titles = [title for title in _TITLES if title != "host" or with_host]
    lines = [
        [
            row.id,
            *([printable(row.host or "")] if with_host else []),
            state_of(root, row),
            row.source,
            printable(name_of(row) or ""),
            _outcome(row),
        ]
        for row in rows
    ]
    needed = [max(map(cell_len, column)) for column in zip(titles, *lines, strict=True)]
    if with_host:
        needed[1] = min(needed[1], _MAX_HOST)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for title, width in zip(titles, _widths(needed, output_width()), strict=True):
        table.add_column(title, overflow="fold", width=width)
    for line in lines:
        table.add_row(*line)
    Console(markup=False, highlight=False, width=_UNLIMITED).print(table)


def output_width() -> int:
    """Return the cells of a line of stdout: those of the terminal or of COLUMNS; without both, lines have no end."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return Console().width
    return _UNLIMITED


def _widths(needed: list[int], width: int) -> list[int]:
    """Return the widths of columns that need *needed* cells, on lines of *width* cells.

    Only the last three are made narrower. If they have no room, a line is longer, so that nothing is lost.
    """
    *fixed, source, name, outcome = needed
    left = width - sum(fixed) - _GAP * (len(needed) - 1)
    outcome = min(outcome, max(_MIN_LAST_COLUMN, left - source - name))
    left = max(left - outcome, 2 * _MIN_NAME)
    if source + name > left:
        source = min(source, max(left // 2, left - name))
        name = left - source
    return [*fixed, source, name, outcome]


def _outcome(row: Row) -> str:
    label = label_of(row)
    if label is not None and row.probability is not None:
        return f"{label}  {row.probability:.3f}"
    return label or row.error or ""
