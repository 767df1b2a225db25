"""Write tables to open files: CSV, JSON Lines and Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import IO, Any

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.tables.answers import AnswerRow
from fluxdrop.tables.columns import NAMES, Cell, Kind
from fluxdrop.tables.csv_text import CsvEncoder
from fluxdrop.tables.forms import Table

_MAX_GROUP_ROWS = 10_000
_MAX_GROUP_CELLS = 1_000_000


def write_csv(file: IO[bytes], table: Table, encoder: CsvEncoder) -> None:
    """Write *table* to *file*, the names of the columns first."""
    file.write(encoder.line([name for name, _ in table.columns]))
    for row in table.rows:
        file.write(encoder.line(row))


def write_jsonl(file: IO[bytes], answers: Iterable[AnswerRow]) -> None:
    """Write an object for each of *answers*; its labels and values are in objects and lists as in a result's JSON."""
    encode = msgspec.json.Encoder().encode
    for answer in answers:
        row: dict[str, Any] = dict(zip(NAMES, answer.fixed, strict=True))
        labels = [item for item in answer.items if item.p is not None]
        row["probabilities"] = {item.name: item.p for item in labels}
        row["thresholds"] = {
            item.name: item.threshold for item in labels if item.threshold is not None
        }
        row["values"] = [
            {"name": item.name, "value": item.value, "unit": item.unit or ""}
            for item in answer.items
            if item.p is None
        ]
        file.write(encode(row) + b"\n")


def write_jsonl_table(file: IO[bytes], table: Table) -> None:
    """Write an object for each row of *table*."""
    encode = msgspec.json.Encoder().encode
    names = [name for name, _ in table.columns]
    for row in table.rows:
        file.write(encode(dict(zip(names, row, strict=True))) + b"\n")


def require_parquet() -> None:
    """Raise FluxdropError, kind ``export``, if pyarrow cannot be imported."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise FluxdropError(
            "Parquet needs the package pyarrow, which is not installed",
            hint="Run: pip install 'fluxdrop[parquet]'",
            kind="export",
        ) from error


def write_parquet(file: IO[bytes], table: Table) -> None:
    """Write *table* to *file* in groups of up to 10,000 rows, compressed with Zstandard. Needs pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[Kind, Any] = {
        "text": pa.string(),
        "integer": pa.int64(),
        "seed": pa.uint64(),
        "number": pa.float64(),
        "flag": pa.bool_(),
        "time": pa.timestamp("us", "UTC"),
        "list": pa.list_(pa.string()),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in table.columns])
    size = min(_MAX_GROUP_ROWS, _MAX_GROUP_CELLS // len(table.columns))
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in _groups(table.rows, size):
            columns = [
                _converted(cells, kind)
                for cells, (_, kind) in zip(zip(*rows, strict=True), table.columns, strict=True)
            ]
            arrays = [
                pa.array(cells, field.type) for cells, field in zip(columns, schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _converted(cells: Sequence[Cell], kind: Kind) -> Sequence[Any]:
    if kind != "time":
        return cells
    return [None if cell is None else datetime.fromisoformat(str(cell)) for cell in cells]


def _groups(rows: Iterator[list[Cell]], size: int) -> Iterator[list[list[Cell]]]:
    while group := list(islice(rows, size)):
        yield group
