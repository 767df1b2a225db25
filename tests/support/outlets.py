"""Jobs that end and owe to outlets, without a daemon."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from fluxdrop.files.layout import Root
from fluxdrop.jobs.outbox import Debt, Outbox
from fluxdrop.jobs.store import Store
from fluxdrop.records.index_row import row_of
from fluxdrop.records.result import Record, encode
from support.daemons import PATIENCE
from support.gallery_records import path_of


@contextmanager
def outbox_of(root: Root, **outlets: int) -> Iterator[tuple[Store, Outbox]]:
    """The index of *root*, and its outbox for *outlets*, each with what counts as lost."""
    with closing(Store(root.database)) as store:
        yield (
            store,
            Outbox(store, {name.replace("_csv", ".csv"): n for name, n in outlets.items()}, 0.0),
        )


def end(
    root: Root,
    store: Store,
    outbox: Outbox,
    ended: Sequence[tuple[Record, str]],
    owe: Callable[[Record, str], Sequence[Debt]],
) -> None:
    """End jobs with the records *ended*, each with its NAME, as the publisher does: with what they owe."""
    debts: list[Debt] = []
    for record, name in ended:
        path = root.path / path_of(record, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(record))
        debts += owe(record, path_of(record, name))
    rows = [row_of(record, path_of(record, name)) for record, name in ended]
    store.finished(rows, lambda db: outbox.add(db, debts, 0.0))


def wait_until(is_so: Callable[[], object], what: str) -> None:
    """Wait for *is_so*, or fail the test."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, f"not so in time: {what}"
        time.sleep(0.01)
