"""Roots with many results, made without a daemon, for the tests and the benchmark of tables."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

from fluxdrop.files.layout import Root
from fluxdrop.jobs.store import Store
from fluxdrop.records.index_row import row_of
from fluxdrop.records.result import Record, encode
from support.gallery_records import path_of, result


def put_records(root: Root, records: Iterable[tuple[Record, str]]) -> None:
    """Put *records*, each with its NAME, into outputs/ and the index."""
    rows = []
    for record, name in records:
        path = root.path / path_of(record, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(record))
        rows.append(row_of(record, path_of(record, name)))
    with closing(Store(root.database)) as store:
        store.fill(rows)


def fill_root(root: Root, count: int) -> None:
    """Put *count* results into *root*, a thousand in each folder."""
    for first in range(0, count, 1000):
        numbers = range(first, min(first + 1000, count))
        names = [f"study {first // 1000:03}/{number:06}" for number in numbers]
        pairs = zip(numbers, names, strict=True)
        put_records(root, [(result(name, number), name) for number, name in pairs])
