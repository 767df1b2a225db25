"""CSV that programs and spreadsheets read alike."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxdrop.tables.csv_text import CsvEncoder

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.lists(TEXT, min_size=2, max_size=2), min_size=1, max_size=3))
def test_any_text_is_read_back(rows: list[list[str]]) -> None:
    """What is written raw, Python's reader of RFC 4180 gives back, whatever quotes, commas and line ends are in it."""
    encoder = CsvEncoder(is_raw=True)
    data = b"".join(map(encoder.line, rows))

    assert rows == list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))
    assert 0 == encoder.guarded


@pytest.mark.parametrize("start", [*"=+-@\t\r", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_no_text_is_a_formula(start: str) -> None:
    """Text that a spreadsheet would run begins with an apostrophe, and is counted."""
    encoder = CsvEncoder()

    line = encoder.line([f"{start}HYPERLINK(0)", "a", None])

    assert [[f"'{start}HYPERLINK(0)", "a", ""]] == list(
        csv.reader(io.StringIO(line.decode(), newline=""))
    )
    assert 1 == encoder.guarded


def test_cells_that_are_not_text() -> None:
    """Numbers are written as Python reads them back, below zero too; lists are JSON; what is not known is empty."""
    line = CsvEncoder().line([-0.1, 2**64 - 1, True, False, ["ü", "a;b"], [], None, "x\ny"])

    assert '-0.1,18446744073709551615,true,false,"[""ü"", ""a;b""]",[],,"x\ny"\r\n' == line.decode()
