"""Format text for a terminal.

This uses little of rich: its tables take longer to load than `status` may take. Widths are in cells of
the terminal.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import typer
from rich.cells import cell_len, chop_cells


def bold(text: str) -> str:
    """Return *text* in bold, or as it is if NO_COLOR is set."""
    return text if os.environ.get("NO_COLOR") else typer.style(text, bold=True)


def coloured(text: str, colour: str) -> str:
    """Return *text* in bold and in *colour*, or as it is if NO_COLOR is set."""
    return text if os.environ.get("NO_COLOR") else typer.style(text, fg=colour, bold=True)


def folded(text: str, width: int) -> Iterator[str]:
    """Yield *text* in lines of at most *width* cells, broken at spaces where possible."""
    line = ""
    for word in text.split():
        if line and cell_len(line) + 1 + cell_len(word) > width:
            yield line
            line = ""
        *whole, rest = chop_cells(word, width)
        if whole and line:
            yield line
            line = ""
        yield from whole
        line = f"{line} {rest}" if line else rest
    yield line


def hanging(title: str, indent: int, text: str, width: int, style: str = "") -> Iterator[str]:
    """Yield lines with *title* in the left column and *text* wrapped in the right one.

    Args:
        title: The title; it is in bold.
        indent: The width of the left column.
        text: The text.
        width: The width of a whole line. The text gets 20 cells at least.
        style: The colour of the text; the terminal's by default.
    """
    padding = " " * max(0, indent - cell_len(title))
    for number, line in enumerate(folded(text, max(width - indent, 20))):
        styled = coloured(line, style) if style else line
        yield f"{bold(title)}{padding}{styled}" if number == 0 else " " * indent + styled


def columns(rows: Iterable[Sequence[str]], width: int) -> Iterator[str]:
    """Yield *rows* as lines of at most *width* cells; only the last column is wrapped, to 20 cells at least."""
    table = [tuple(row) for row in rows]
    if not table:
        return
    widths = [max(map(cell_len, column)) for column in list(zip(*table, strict=True))[:-1]]
    indent = sum(widths) + 2 * len(widths)
    for *cells, last in table:
        start = "".join(
            cell + " " * (wide - cell_len(cell) + 2)
            for cell, wide in zip(cells, widths, strict=True)
        )
        for number, line in enumerate(folded(last, max(width - indent, 20))):
            yield f"{start}{line}".rstrip() if number == 0 else " " * indent + line


def progress_text(
    step: int, steps: int | None, steps_per_second: float | None, seconds_left: float | None
) -> str:
    """Return how far a generation is and how fast it is, such as ``step 3 of 20, 1.5 it/s, 11 s left``.

    Args:
        step: The steps done.
        steps: All steps, or None while they are unknown.
        steps_per_second: The speed, or None while it is unknown.
        seconds_left: The remaining time, or None while it is unknown.
    """
    text = f"step {step} of {steps or '?'}"
    if steps_per_second and seconds_left is not None:
        text += f", {steps_per_second:.3g} it/s, {seconds_left:.0f} s left"
    return text
