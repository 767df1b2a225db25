"""What ended jobs still owe to the outlets, which are hooks and results.csv: rows of the index's database.

A job's end and its debts are one transaction, so no kill and no power cut separates them. A debt is removed when it is
paid. This imports little, as `fluxdrop status` reads it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from fluxdrop.jobs.store import Store

MAX_OWED = 100_000
"""How many debts to one outlet are kept. Of what comes later, the number is kept."""
MAX_OWED_BYTES = 256 * 1024**2

_TABLES = (
    """CREATE TABLE IF NOT EXISTS owed (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        outlet TEXT NOT NULL,
        job TEXT NOT NULL,
        data BLOB NOT NULL,
        tries INTEGER NOT NULL DEFAULT 0,
        due REAL NOT NULL,
        UNIQUE (outlet, job)
    )""",
    "CREATE INDEX IF NOT EXISTS owed_by_due ON owed (outlet, due, number)",
    "CREATE INDEX IF NOT EXISTS owed_by_number ON owed (outlet, number)",
    """CREATE TABLE IF NOT EXISTS outlets (
        name TEXT PRIMARY KEY,
        owed INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        refused INTEGER NOT NULL DEFAULT 0,
        lost INTEGER NOT NULL DEFAULT 0,
        problem TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID""",
)


class Debt(NamedTuple):
    """What a job that has ended owes to an outlet."""

    outlet: str
    job: str
    data: bytes


class Owed(NamedTuple):
    """A debt in the outbox."""

    number: int
    """Later debts have greater numbers."""
    job: str
    data: bytes
    tries: int
    """How often it was not taken."""


class Balance(NamedTuple):
    """How it stands with an outlet."""

    owed: int
    refused: int
    """How many debts the outlet refused for good."""
    lost: int
    """How many debts found no room."""
    problem: str
    """Why the last debt was not taken; empty if it was."""


class Outbox:
    """The debts to *outlets*, in the index *store*. Any thread may use it. Each method raises what `Store` does."""

    def __init__(self, store: Store, outlets: Mapping[str, int], now: float) -> None:
        """Drop what is owed to others than *outlets*, and make all that is owed to these due.

        Args:
            store: The index.
            outlets: Their names, each with how many debts count as lost if it is new.
            now: The time, in seconds since 1970.
        """
        self._store = store
        names = list(outlets)
        with store.transaction() as db:
            for statement in _TABLES:
                db.execute(statement)
            marks = ", ".join("?" * len(names))
            gone = db.execute(f"DELETE FROM owed WHERE outlet NOT IN ({marks})", names)  # noqa: S608
            self.dropped = gone.rowcount
            """How many debts to outlets that are no more were dropped."""
            db.execute(f"DELETE FROM outlets WHERE name NOT IN ({marks})", names)  # noqa: S608
            db.execute("UPDATE owed SET due = ?", (now,))
            db.executemany(
                "INSERT OR IGNORE INTO outlets (name, lost) VALUES (?, ?)", outlets.items()
            )

    def add(self, db: sqlite3.Connection, debts: Iterable[Debt], now: float) -> None:
        """Enter *debts* of jobs that have not ended yet in the transaction of *db*, which ends them."""
        for debt in debts:
            full = db.execute(
                "UPDATE outlets SET lost = lost + 1 WHERE name = ? AND (owed >= ? OR bytes >= ?)",
                (debt.outlet, MAX_OWED, MAX_OWED_BYTES),
            )
            if full.rowcount:
                continue
            added = db.execute(
                "INSERT OR IGNORE INTO owed (outlet, job, data, due) SELECT ?, ?, ?, ?"
                " WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = ? AND state != 'claimed')",
                (debt.outlet, debt.job, debt.data, now, debt.job),
            )
            if added.rowcount:
                _count(db, debt.outlet, 1, len(debt.data))

    def due(self, outlet: str, now: float, max_pause: float) -> Owed | None:
        """Return what has been due to *outlet* for longest; None if nothing is due.

        What is due later than *max_pause* from now was entered before the clock was set back.
        """
        found = self._select(
            "outlet = ? AND (due <= ? OR due > ?) ORDER BY due, number LIMIT 1",
            (outlet, now, now + max_pause),
        )
        return found[0] if found else None

    def oldest(self, outlet: str, limit: int) -> list[Owed]:
        """Return the *limit* debts to *outlet* that were entered first."""
        return self._select("outlet = ? ORDER BY number LIMIT ?", (outlet, limit))

    def _select(self, where: str, values: tuple[object, ...]) -> list[Owed]:
        with self._store.reading() as db:
            found = db.execute(
                f"SELECT number, job, data, tries FROM owed WHERE {where}",  # noqa: S608
                values,
            ).fetchall()
        return [Owed(*row) for row in found]

    def next_due(self, outlet: str) -> float | None:
        """Return when something is due to *outlet*; None if nothing is owed."""
        with self._store.reading() as db:
            (due,) = db.execute("SELECT min(due) FROM owed WHERE outlet = ?", (outlet,)).fetchone()
        return None if due is None else float(due)

    def has(self, outlet: str, job: str) -> bool:
        """Return whether *job* owes something to *outlet*."""
        with self._store.reading() as db:
            found = db.execute(
                "SELECT 1 FROM owed WHERE outlet = ? AND job = ?", (outlet, job)
            ).fetchone()
        return found is not None

    def pay(self, outlet: str, paid: Sequence[Owed], *, sync: bool = False) -> None:
        """Remove *paid*, which *outlet* has taken; with *sync*, this is on the disk on return."""
        self._remove(outlet, paid, "problem = ''", (), sync)

    def refuse(self, outlet: str, owed: Owed, problem: str) -> None:
        """Remove *owed*, which *outlet* will never take because of *problem*."""
        self._remove(outlet, [owed], "refused = refused + 1, problem = ?", (problem,), False)

    def _remove(
        self, outlet: str, owed: Sequence[Owed], changes: str, values: tuple[str, ...], sync: bool
    ) -> None:
        with self._store.transaction("FULL" if sync else "NORMAL") as db:
            db.executemany("DELETE FROM owed WHERE number = ?", [(one.number,) for one in owed])
            db.execute(f"UPDATE outlets SET {changes} WHERE name = ?", (*values, outlet))  # noqa: S608
            _count(db, outlet, -len(owed), -sum(len(one.data) for one in owed))

    def postpone(self, outlet: str, owed: Owed, due: float, problem: str) -> None:
        """Make *owed*, which was not taken because of *problem*, due at *due*, and count the try."""
        with self._store.transaction() as db:
            db.execute(
                "UPDATE owed SET tries = tries + 1, due = ? WHERE number = ?", (due, owed.number)
            )
            db.execute("UPDATE outlets SET problem = ? WHERE name = ?", (problem, outlet))

    def found(self, outlet: str, lost: int) -> None:
        """Forget that *lost* debts to *outlet* found no room, unless there are more by now."""
        with self._store.transaction("FULL") as db:
            db.execute("UPDATE outlets SET lost = 0 WHERE name = ? AND lost = ?", (outlet, lost))

    def balances(self) -> dict[str, Balance]:
        """Return how it stands with each outlet."""
        return balances(self._store)


def _count(db: sqlite3.Connection, outlet: str, debts: int, size: int) -> None:
    db.execute(
        "UPDATE outlets SET owed = owed + ?, bytes = bytes + ? WHERE name = ?",
        (debts, size, outlet),
    )


def balances(store: Store) -> dict[str, Balance]:
    """Return how it stands with each outlet by the index *store*, which may be of an older fluxdrop."""
    with store.reading() as db:
        tables = "SELECT 1 FROM sqlite_master WHERE name = 'outlets'"
        if db.execute(tables).fetchone() is None:
            return {}
        rows = db.execute(
            "SELECT name, owed, refused, lost, problem FROM outlets ORDER BY name"
        ).fetchall()
    return {name: Balance(*facts) for name, *facts in rows}
