"""The forms of a table: a column for each label, or a row for each label."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.tables.answers import AnswerRow, Item
from fluxdrop.tables.columns import COLUMNS, Cell, Kind

MAX_ITEM_COLUMNS = 4096
"""The most columns for labels and values. A spreadsheet has 16,384 in all."""

_LONG_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("item", "text"),
    ("item_p", "number"),
    ("item_threshold", "number"),
    ("item_found", "flag"),
    ("item_value", "number"),
    ("item_unit", "text"),
)
_FIXED: tuple[tuple[str, Kind], ...] = tuple((column.name, column.kind) for column in COLUMNS)
_LENGTH_BYTES = 4


class Table(NamedTuple):
    """A table whose *rows* are made while they are read."""

    columns: tuple[tuple[str, Kind], ...]
    """The names and types."""
    rows: Iterator[list[Cell]]


def long_table(answers: Iterable[AnswerRow]) -> Table:
    """Return *answers* with a row for each label or value, or one without if there are none."""
    return Table((*_FIXED, *_LONG_COLUMNS), _long_rows(answers))


def _long_rows(answers: Iterable[AnswerRow]) -> Iterator[list[Cell]]:
    for answer in answers:
        for item in answer.items:
            yield [*answer.fixed, *msgspec.structs.astuple(item)]
        if not answer.items:
            yield [*answer.fixed, *[None] * len(_LONG_COLUMNS)]


@contextmanager
def wide_table(answers: Iterable[AnswerRow]) -> Iterator[Table]:
    """Yield *answers* with a column for each label and value, in the order in which they are first met.

    All answers are read before the first row is known; a temporary file keeps them meanwhile.

    Raises:
        FluxdropError: There are more than `MAX_ITEM_COLUMNS` of them; kind ``export``.
        OSError: The temporary file cannot be written.
    """
    names: dict[str, int] = {}
    with tempfile.TemporaryFile(prefix="fluxdrop-") as spool:
        encode = msgspec.msgpack.Encoder().encode
        for answer in answers:
            for item in answer.items:
                names.setdefault(_column_of(item), len(names))
            if len(names) > MAX_ITEM_COLUMNS:
                raise FluxdropError(
                    f"The results have more than {MAX_ITEM_COLUMNS:,} labels, which is too many columns",
                    hint="Ask for a row for each label with --long, or for JSON Lines.",
                    kind="export",
                )
            data = encode(answer)
            _spool(spool, len(data).to_bytes(_LENGTH_BYTES, "little") + data)
        spool.seek(0)
        columns = (*_FIXED, *((name, "number") for name in names))
        yield Table(columns, _wide_rows(spool, names))


def _spool(file: BinaryIO, data: bytes) -> None:
    try:
        file.write(data)
    except OSError as error:
        error.filename = tempfile.gettempdir()
        raise


def _column_of(item: Item) -> str:
    """Return the name of the column for *item*: no fixed column begins like it."""
    if item.p is not None:
        return f"p_{item.name}"
    return f"value_{item.name} ({item.unit})" if item.unit else f"value_{item.name}"


def _wide_rows(spool: BinaryIO, names: dict[str, int]) -> Iterator[list[Cell]]:
    decode = msgspec.msgpack.Decoder(AnswerRow).decode
    while length := spool.read(_LENGTH_BYTES):
        answer = decode(spool.read(int.from_bytes(length, "little")))
        row: list[Cell] = [None] * len(names)
        for item in answer.items:
            row[names[_column_of(item)]] = item.value if item.p is None else item.p
        yield [*answer.fixed, *row]
