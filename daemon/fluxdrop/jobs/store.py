"""The index of jobs, an SQLite database: it answers quickly what the folders could answer slowly.

The daemon that holds the root's lock is the only writer. Losing the index loses no result: a missing
one is rebuilt from outputs/.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from fluxdrop import failpoints
from fluxdrop.errors import FluxdropError
from fluxdrop.files.folder_key import folder_key
from fluxdrop.jobs.index_file import is_other, move_aside, refuse_other
from fluxdrop.jobs.job_filter import JobFilter as JobFilter
from fluxdrop.jobs.job_filter import records_named
from fluxdrop.jobs.schema import (
    LATER_COLUMNS,
    LATER_INDEXES,
    SCHEMA,
    SCHEMA_VERSION,
    UNFILLED,
    WITHOUT_MODEL,
)
from fluxdrop.jobs.schema import State as State
from fluxdrop.timestamps import rfc3339


class Row(NamedTuple):
    """A job's row in the index; *record* is the path of its JSON below the root."""

    id: str
    state: State
    kind: str
    source: str
    inode: int | None = None
    attempts: int = 0
    replay_of: str | None = None
    created: str = ""
    finished: str | None = None
    record: str | None = None
    label: str | None = None
    probability: float | None = None
    error: str | None = None
    model: str | None = None
    host: str | None = None
    """The host that made its picture; None if that was the daemon's own machine, or nothing was generated."""


_TYPES: dict[str, type] = {"inode": int, "attempts": int, "probability": float}


@cache
def _is_row(types: tuple[type, ...]) -> bool:
    """Return whether values of *types* can be a job's row: SQLite stores any type in any column."""
    return all(
        found is _TYPES.get(name, str)
        or (found is NoneType and Row._field_defaults.get(name, "") is None)
        for name, found in zip(Row._fields, types, strict=True)
    )


_DAMAGED = "If it is damaged, move it away; it is built again from outputs/."
_COLUMNS = ", ".join(Row._fields)
_INSERT = f"INTO jobs ({_COLUMNS}) VALUES ({', '.join('?' * len(Row._fields))})"

_UPSERT = (
    f"INSERT {_INSERT} ON CONFLICT (id) DO UPDATE SET state = excluded.state,"
    " attempts = max(attempts, excluded.attempts),"
    " finished = excluded.finished, record = excluded.record, label = excluded.label,"
    " probability = excluded.probability, error = excluded.error, model = excluded.model,"
    " host = excluded.host"
)

# Raised for values that SQLite cannot store.
_VALUE_ERRORS = (OverflowError, UnicodeEncodeError, sqlite3.DataError, sqlite3.IntegrityError)

# SQLite's errors about the disk, as the errno of a transient error, for which a stage waits.
_DISK_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EIO,
}


def _code(error: BaseException) -> int:
    """Return SQLite's primary result code of *error*; 0 if it has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


class Store:
    """The index. Any thread may use it.

    With *read_only*, a missing index is empty. The constructor and the reads of a read-only index raise
    FluxdropError, kind ``index``, for a file that cannot be used. A write raises OSError if the disk fails.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._lock = threading.Lock()
        self._path = path
        self._is_read_only = read_only
        refuse_other(path)
        uri = f"{path.as_uri()}?mode={'ro' if read_only else 'rwc'}"
        if read_only and not path.exists():
            uri = ":memory:"
        try:
            try:
                self._open(uri, read_only)
            except sqlite3.Error as error:
                if read_only and self._is_complete_file(error):
                    # So SQLite can read it where it may not create files beside it.
                    self._open(f"{uri}&immutable=1", read_only)
                elif not read_only and is_other(error):
                    move_aside(path)
                    self._open(uri, read_only)
                else:
                    raise
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: sqlite3.Error) -> FluxdropError:
        hint = (
            "See whether the disk is full or mounted read-only."
            if _code(error) in _DISK_ERRORS
            else _DAMAGED
        )
        return FluxdropError(f"{self._path} cannot be used: {error}", hint=hint, kind="index")

    def _open(self, uri: str, read_only: bool) -> None:
        self._db = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10
        )
        # Else SQLite writes the journal of each statement in a transaction to a file, page by page.
        self._db.execute("PRAGMA temp_store = MEMORY")
        try:
            self._prepare(read_only)
        except BaseException:
            self._db.close()
            raise
        # For `JobFilter`. Any type may be in any column.
        self._db.create_function(
            "folder_key", 1, lambda source: folder_key(str(source)), deterministic=True
        )

    def _is_complete_file(self, error: sqlite3.Error) -> bool:
        """Return whether *error* is about the disk, and the file is the whole index, without changes in a WAL."""
        wal = self._path.with_name(f"{self._path.name}-wal")
        return _code(error) in _DISK_ERRORS and not (wal.exists() and wal.stat().st_size)

    def _prepare(self, read_only: bool) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version not in (0, WITHOUT_MODEL, UNFILLED, SCHEMA_VERSION):
            raise FluxdropError(
                f"{self._path} has version {version}, and this fluxdrop reads version"
                f" {SCHEMA_VERSION}",
                hint="Move it away; it is built again from outputs/.",
                kind="index",
            )
        if read_only and version == 0:
            self._db.close()
            self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        if not read_only:
            self._db.execute("PRAGMA journal_mode = WAL")
        if version == 0:
            self._db.executescript(
                f"BEGIN;{SCHEMA}{LATER_INDEXES}PRAGMA user_version = {UNFILLED};COMMIT;"
            )
        self._add_columns(version, read_only)
        for columns, table in ((_COLUMNS, "jobs"), ("state, jobs", "counts")):
            self._db.execute(f"SELECT {columns} FROM {table} LIMIT 0")  # noqa: S608

    def _add_columns(self, version: int, read_only: bool) -> None:
        """Add what the table of jobs of an older fluxdrop lacks; for a reader, as columns without values."""
        found = {name for _, name, *_ in self._db.execute("PRAGMA table_info(jobs)")}
        later = LATER_COLUMNS if version == WITHOUT_MODEL else LATER_COLUMNS[1:]
        missing = [name for name in later if found and name not in found]
        if missing and read_only:
            nulls = ", ".join(f"NULL AS {name}" for name in missing)
            self._db.execute(f"CREATE TEMP VIEW jobs AS SELECT *, {nulls} FROM main.jobs")  # noqa: S608
        elif missing:
            added = "".join(f"ALTER TABLE jobs ADD COLUMN {name} TEXT;" for name in missing)
            refill = (
                f"{LATER_INDEXES}PRAGMA user_version = {UNFILLED};"
                if version == WITHOUT_MODEL
                else ""
            )
            self._db.executescript(f"BEGIN;{added}{refill}COMMIT;")

    @property
    def fresh(self) -> bool:
        """Whether `fill` has to enter outputs/: the index is new, or an older fluxdrop entered less."""
        with self._lock:
            return bool(self._db.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION)

    def fill(self, rows: Iterable[Row]) -> list[Row]:
        """Enter *rows*, those of all records in outputs/, in one transaction.

        Return the rows that SQLite cannot store; they are skipped. Anybody may have made their records.
        """
        refused = []
        with self.transaction() as db:
            for row in rows:
                try:
                    db.execute(_UPSERT, row)
                except _VALUE_ERRORS:
                    refused.append(row)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return refused

    def claimed(self, rows: Iterable[Row]) -> None:
        """Enter new jobs; a row that exists stays as it is."""
        with self.transaction() as db:
            db.executemany(f"INSERT OR IGNORE {_INSERT}", rows)

    def finished(
        self, rows: Iterable[Row], before: Callable[[sqlite3.Connection], None] = lambda _db: None
    ) -> None:
        """Enter how jobs ended, whether or not they have a row. On return this is on the disk.

        *before* is called in the same transaction, before that.
        """
        # The jobs' folders are removed next; after a power cut only the index would know of the jobs.
        with self.transaction("FULL") as db:
            before(db)
            db.executemany(_UPSERT, rows)

    def keep_claims(self, job_ids: Iterable[str]) -> int:
        """Remove the claimed jobs that are not among *job_ids*; return how many there were.

        A power cut can keep a claim in the index and undo it on the disk. Then the input is in the inbox
        again, and will be another job's.
        """
        with self.transaction() as db:
            claimed = db.execute("SELECT id FROM jobs WHERE state = 'claimed'").fetchall()
            lost = {job_id for (job_id,) in claimed} - set(job_ids)
            db.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in lost])
        return len(lost)

    def begin_attempt(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Count one more attempt at each of *job_ids*; return the number of attempts by id."""
        marks = ", ".join("?" * len(job_ids))
        with self.transaction() as db:
            counted = db.execute(
                f"UPDATE jobs SET attempts = attempts + 1 WHERE id IN ({marks})"  # noqa: S608
                " RETURNING id, attempts",
                job_ids,
            )
            return dict.fromkeys(job_ids, 1) | dict(counted.fetchall())

    def get(self, job_id: str) -> Row | None:
        """Return the job *job_id*; None if there is none."""
        return next(iter(self._rows("WHERE id = ?", (job_id,))), None)

    def find(self, job: str) -> list[Row]:
        """Return the jobs that *job* can mean, the prefix of ids and the source 10 at most.

        That is an id, else a result's NAME, else a prefix of ids, else an input's path below inbox/.
        """
        return (
            self._rows("WHERE id = ?", (job,))
            or self._rows("WHERE record IN (?, ?)", records_named(job))
            or self._rows("WHERE id >= ? AND id < ? LIMIT 10", (job, job + "\U0010ffff"))
            or self._rows("WHERE source = ? LIMIT 10", (job,))
        )

    def parts(self, job_id: str) -> list[Row]:
        """Return the jobs for the other pictures that the input of *job_id* asked for."""
        return self._rows("WHERE id >= ? AND id < ? ORDER BY id", (f"{job_id}-", f"{job_id}."))

    def in_hand(self, job: str) -> list[Row]:
        """Return the unfinished jobs that *job* means: an id, a path below inbox/, or a prefix of ids."""
        for where, values in (
            ("id = ?", (job,)),
            ("source = ?", (job,)),
            ("id >= ? AND id < ?", (job, job + "\U0010ffff")),
        ):
            found = self._rows(f"WHERE state = 'claimed' AND {where} ORDER BY id", values)
            if found:
                return found
        return []

    def by_inode(self, inode: int, since: str) -> list[Row]:
        """Return the jobs whose input had *inode*, created at *since* (RFC 3339) or later, newest first."""
        return self._rows("WHERE inode = ? AND created >= ? ORDER BY created DESC", (inode, since))

    def latest(self, state: State, max_rows: int) -> list[Row]:
        """Return the *max_rows* jobs in *state* that finished last, newest first."""
        return self._rows("WHERE state = ? ORDER BY finished DESC LIMIT ?", (state, max_rows))

    def ended(self) -> list[tuple[str, str]]:
        """Return id and record path of each job that has ended, in the order of their ends."""
        with self.reading() as db:
            return db.execute(
                "SELECT id, record FROM jobs WHERE state != 'claimed' AND record IS NOT NULL"
                " ORDER BY finished, id"
            ).fetchall()

    def select(self, wanted: JobFilter, max_rows: int = -1) -> list[Row]:
        """Return the jobs that match *wanted*, newest first: at most *max_rows*, or all for -1."""
        where, values = wanted.condition()
        return self._rows(f"WHERE {where} ORDER BY id DESC LIMIT ?", (*values, max_rows))

    def each(self, wanted: JobFilter, page: int = 500) -> Iterator[Row]:
        """Yield the jobs that match *wanted*, oldest first, holding at most *page* of them in memory."""
        where, values = wanted.condition()
        last = ""
        while rows := self._rows(
            f"WHERE id > ? AND {where} ORDER BY id LIMIT ?", (last, *values, page)
        ):
            yield from rows
            last = rows[-1].id

    def count(self, wanted: JobFilter) -> int:
        """Return how many jobs match *wanted*."""
        where, values = wanted.condition()
        with self.reading() as db:
            (count,) = db.execute(f"SELECT count(*) FROM jobs WHERE {where}", values).fetchone()  # noqa: S608
        return int(count)

    def replays_of(self, job_id: str) -> list[Row]:
        """Return the replays of *job_id*, oldest first."""
        return self._rows("WHERE replay_of = ? ORDER BY id", (job_id,))

    def ended_between(self, state: State, start: datetime, end: datetime) -> int:
        """Return how many jobs ended in *state* at *start* or later and before *end*."""
        with self.reading() as db:
            (count,) = db.execute(
                "SELECT count(*) FROM jobs WHERE state = ? AND finished >= ? AND finished < ?",
                (state, rfc3339(start), rfc3339(end)),
            ).fetchone()
        return int(count)

    def counts(self) -> dict[str, int]:
        """Return the number of jobs by state."""
        with self.reading() as db:
            return dict(db.execute("SELECT state, jobs FROM counts").fetchall())

    def close(self) -> None:
        """Close the index."""
        with self._lock:
            self._db.close()

    def _rows(self, where: str, values: tuple[Any, ...]) -> list[Row]:
        with self.reading() as db:
            found = db.execute(f"SELECT {_COLUMNS} FROM jobs {where}", values).fetchall()  # noqa: S608
        if not all(_is_row(tuple(map(type, row))) for row in found):
            raise FluxdropError(
                f"{self._path} has a row that is not a job", hint=_DAMAGED, kind="index"
            )
        return [Row(*row) for row in found]

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield the database to read; no other thread uses it meanwhile. Raises what `Store` does."""
        # The daemon needs SQLite's own error, to know whether it is transient.
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                if not self._is_read_only:
                    raise
                raise self._unusable(error) from error

    @contextlib.contextmanager
    def transaction(self, synchronous: str = "NORMAL") -> Iterator[sqlite3.Connection]:
        """Yield the database in a transaction; with *synchronous* FULL, what it changes is on the disk after it.

        Raises:
            OSError: The disk failed; nothing was changed.
        """
        # The folders are authoritative, so the index need not be synced at each commit.
        with self._lock:
            try:
                self._db.execute(f"PRAGMA synchronous = {synchronous}")
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                failpoints.reach("index-written")
                self._db.execute("COMMIT")
                failpoints.reach("index-committed")
            except BaseException as error:
                # On a full disk SQLite has rolled back already.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                number = _DISK_ERRORS.get(_code(error))
                if number is not None:
                    raise OSError(number, str(error), str(self._path)) from error
                raise
