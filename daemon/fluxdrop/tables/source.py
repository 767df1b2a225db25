"""The records of a root that a table is made of, read one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.jobs.job_filter import JobFilter
from fluxdrop.jobs.store import Store
from fluxdrop.records.index_row import row_of
from fluxdrop.records.job_files import read_record
from fluxdrop.records.outputs import records
from fluxdrop.tables.answers import AnswerRow, answer_rows

OnSkip = Callable[[str], None]
"""Called with a sentence about each file that is left out."""


@contextmanager
def opened_index(root: Root, on_skip: OnSkip = lambda _why: None) -> Iterator[Store]:
    """Yield the index of *root*; one that is missing or of an older fluxdrop is built from outputs/, for the time.

    Raises:
        FluxdropError: The index cannot be used; kind ``index``.
        OSError: The temporary index cannot be written.
    """
    if root.database.exists():
        with closing(Store(root.database, read_only=True)) as store:
            if not store.fresh:
                yield store
                return
    with (
        tempfile.TemporaryDirectory(prefix="fluxdrop-") as folder,
        closing(Store(Path(folder) / root.database.name)) as store,
    ):
        found = records(root, lambda path: on_skip(f"{path} is not a result of fluxdrop"))
        for row in store.fill(row_of(record, path) for record, path in found):
            on_skip(f"{row.record} has values that fluxdrop does not write")
        yield store


def read_rows(
    root: Root, store: Store, wanted: JobFilter, on_skip: OnSkip, on_progress: Callable[[], None]
) -> Iterator[AnswerRow]:
    """Yield the rows of the ended jobs of *root* that match *wanted*, the oldest first.

    A record that is gone, damaged or another job's is left out.

    Args:
        root: The root.
        store: Its index.
        wanted: Which jobs to read.
        on_skip: Called for each record that is left out.
        on_progress: Called after each job.
    """
    for row in store.each(wanted):
        if row.state != "claimed" and row.record is not None:
            try:
                record = read_record(root, row)
                if record.job_id != row.id:
                    raise FluxdropError(f"{row.record} is now of another job", kind="record")
                yield from list(answer_rows(record, row.record))
            except FluxdropError as error:
                on_skip(error.message)
        on_progress()
