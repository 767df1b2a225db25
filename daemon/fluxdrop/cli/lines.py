"""Text for a terminal without rich's tables, which take longer to load than `status` may take."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import typer
from rich.cells import cell_len, chop_cells


def bold(text: str) -> str:
    """*text* in bold where colours are wanted."""
    return text if os.environ.get("NO_COLOR") else typer.style(text, bold=True)


def coloured(text: str, colour: str) -> str:
    """*text* in *colour* where colours are wanted."""
    return text if os.environ.get("NO_COLOR") else typer.style(text, fg=colour, bold=True)


def folded(text: str, width: int) -> Iterator[str]:
    """*text* in lines of at most *width* cells, broken at spaces where that is possible."""
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
    """*text* in the column behind *title*, which is *indent* cells wide."""
    padding = " " * max(0, indent - cell_len(title))
    for number, line in enumerate(folded(text, max(width - indent, 20))):
        styled = coloured(line, style) if style else line
        yield f"{bold(title)}{padding}{styled}" if number == 0 else " " * indent + styled


def columns(rows: Iterable[Sequence[str]], width: int) -> Iterator[str]:
    """*rows* in columns that are as wide as they need to be; the last one is folded."""
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
    """Say how far a generation is and how fast it goes; *steps* is None until it is known."""
    text = f"step {step} of {steps or '?'}"
    if steps_per_second and seconds_left is not None:
        text += f", {steps_per_second:.3g} it/s, {seconds_left:.0f} s left"
    return text
