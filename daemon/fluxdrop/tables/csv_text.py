"""Rows as CSV: RFC 4180, in UTF-8, safe to open in a spreadsheet.

A spreadsheet takes a cell that begins with =, +, - or @ as a formula. Prompts and file names come from an inbox that
others can write to, so an apostrophe is put before such text (https://owasp.org/www-community/attacks/CSV_Injection).
Numbers are left as they are.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from fluxdrop.tables.columns import Cell

BOM = "\N{BYTE ORDER MARK}".encode()
"""What a file begins with, as Excel takes it for the system's old encoding otherwise."""

_FORMULA_STARTS = (
    *"=+-@\t\r",
    "\N{FULLWIDTH EQUALS SIGN}",
    "\N{FULLWIDTH PLUS SIGN}",
    "\N{FULLWIDTH HYPHEN-MINUS}",
    "\N{FULLWIDTH COMMERCIAL AT}",
)


class CsvEncoder:
    """Encodes rows; *is_raw* leaves text as it is that a spreadsheet would run."""

    def __init__(self, *, is_raw: bool = False) -> None:
        self._is_raw = is_raw
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text, lineterminator="\r\n")
        self.guarded = 0
        """How many cells got an apostrophe."""

    def line(self, row: Sequence[Cell]) -> bytes:
        """Return *row* as a record of CSV with its line end."""
        self._text.seek(0)
        self._text.truncate()
        self._writer.writerow([self._cell(cell) for cell in row])
        return self._text.getvalue().encode()

    def _cell(self, cell: Cell) -> str | int | float | None:
        match cell:
            case bool():
                return "true" if cell else "false"
            case list():
                return json.dumps(cell, ensure_ascii=False)
            case str() if cell.startswith(_FORMULA_STARTS) and not self._is_raw:
                self.guarded += 1
                return f"'{cell}"
        return cell
