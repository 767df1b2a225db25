"""What ended jobs owe: entered with their ends, kept until it is paid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fluxdrop.jobs import outbox as module
from fluxdrop.jobs.outbox import Balance, Debt, Outbox, balances
from fluxdrop.jobs.store import Store
from support.indexes import opened, row

JOBS = [f"20260101T000000-{number:08x}" for number in range(5)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An index."""
    with opened(tmp_path) as found:
        yield found


def finish(store: Store, outbox: Outbox, *jobs: str, now: float = 0.0) -> None:
    """End *jobs*, which owe to the outlet a."""
    debts = [Debt("a", job, job.encode()) for job in jobs]
    rows = [row(job, "done", record=f"outputs/{job}.json") for job in jobs]
    store.finished(rows, lambda db: outbox.add(db, debts, now))


def test_owed_until_paid(store: Store, tmp_path: Path) -> None:
    """A debt is due, the oldest first, until it is paid, also for the next outbox."""
    outbox = Outbox(store, {"a": 0}, 0.0)
    finish(store, outbox, *JOBS[:3])
    first = outbox.due("a", 0.0, 10.0)
    assert first is not None
    outbox.pay("a", [first])

    again = Outbox(store, {"a": 0}, 5.0)

    assert JOBS[0] == first.job
    assert JOBS[1:3] == [owed.job for owed in again.oldest("a", 10)]
    assert {"a": Balance(2, 0, 0, "")} == again.balances() == balances(store)
    assert 5.0 == again.next_due("a")


def test_a_job_owes_once(store: Store) -> None:
    """A job whose end is entered again, as after a kill, owes nothing more."""
    outbox = Outbox(store, {"a": 0}, 0.0)
    finish(store, outbox, JOBS[0])
    outbox.pay("a", outbox.oldest("a", 1))

    finish(store, outbox, JOBS[0])

    assert [] == outbox.oldest("a", 1)


def test_an_end_that_is_undone(store: Store) -> None:
    """If the disk fails, neither the end nor the debt is there."""
    outbox = Outbox(store, {"a": 0}, 0.0)

    def fail(db: object) -> None:
        outbox.add(db, [Debt("a", JOBS[0], b"")], 0.0)  # type: ignore[arg-type]
        raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        store.finished([row(JOBS[0], "done")], fail)

    assert (None, {"a": Balance(0, 0, 0, "")}) == (store.get(JOBS[0]), outbox.balances())


def test_postponed(store: Store) -> None:
    """What is postponed lets others go first, and is due at its time, or when the clock was set back by far."""
    outbox = Outbox(store, {"a": 0}, 0.0)
    finish(store, outbox, *JOBS[:2])
    first = outbox.due("a", 0.0, 10.0)
    assert first is not None
    outbox.postpone("a", first, 7.0, "it was not there")

    second = outbox.due("a", 0.0, 10.0)
    later = outbox.due("a", 8.0, 10.0)
    assert second is not None
    outbox.pay("a", [second])

    assert (JOBS[1], JOBS[1]) == (second.job, later and later.job)
    assert None is outbox.due("a", 6.0, 10.0)
    again = outbox.due("a", -1000.0, 10.0)
    assert (JOBS[0], 1) == (again and again.job, again and again.tries)


def test_full(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is no room, the oldest are kept, and the number of the others; when there is room again, new ones."""
    monkeypatch.setattr(module, "MAX_OWED", 2)
    outbox = Outbox(store, {"a": 0}, 0.0)
    finish(store, outbox, *JOBS[:4])
    kept = outbox.oldest("a", 10)
    outbox.refuse("a", kept[0], "no")
    finish(store, outbox, JOBS[4])

    assert JOBS[:2] == [owed.job for owed in kept]
    assert {"a": Balance(2, 1, 2, "no")} == outbox.balances()
    assert [JOBS[1], JOBS[4]] == [owed.job for owed in outbox.oldest("a", 10)]
    outbox.found("a", 1)
    assert 2 == outbox.balances()["a"].lost
    outbox.found("a", 2)
    assert 0 == outbox.balances()["a"].lost


def test_an_outlet_that_is_no_more(store: Store) -> None:
    """What is owed to an outlet that was switched off is dropped, and a new one begins with what it lacks."""
    finish(store, Outbox(store, {"a": 0}, 0.0), *JOBS[:2])

    outbox = Outbox(store, {"b": 1}, 0.0)

    assert (2, {"b": Balance(0, 0, 1, "")}) == (outbox.dropped, outbox.balances())


def test_an_index_without_an_outbox(tmp_path: Path) -> None:
    """An index that no outbox was opened on, as an older fluxdrop's, has no balances."""
    with opened(tmp_path):
        pass
    with closing(Store(tmp_path / "jobs.sqlite3", read_only=True)) as store:
        assert {} == balances(store)
