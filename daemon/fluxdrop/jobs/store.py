"""The index of jobs in SQLite: quick answers to questions that the folders could answer slowly.

The daemon that holds the root's lock is the only writer. Losing the index loses no result: it is
built again from outputs/ when it is missing.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fluxdrop.errors import FluxdropError

SCHEMA_VERSION = 1

State = Literal["claimed", "done", "failed"]

_SCHEMA = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('claimed', 'done', 'failed')),
    kind TEXT NOT NULL,
    source TEXT NOT NULL,
    inode INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    replay_of TEXT,
    created TEXT NOT NULL,
    finished TEXT,
    record TEXT,
    label TEXT,
    probability REAL,
    error TEXT
) WITHOUT ROWID;
CREATE INDEX jobs_by_finish ON jobs (state, finished);
CREATE INDEX jobs_by_inode ON jobs (inode);
CREATE INDEX jobs_by_record ON jobs (record);
CREATE TABLE counts (state TEXT PRIMARY KEY, jobs INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counts VALUES ('claimed', 0), ('done', 0), ('failed', 0);
CREATE TRIGGER jobs_insert AFTER INSERT ON jobs BEGIN
    UPDATE counts SET jobs = jobs + 1 WHERE state = new.state;
END;
CREATE TRIGGER jobs_update AFTER UPDATE OF state ON jobs BEGIN
    UPDATE counts SET jobs = jobs - 1 WHERE state = old.state;
    UPDATE counts SET jobs = jobs + 1 WHERE state = new.state;
END;
CREATE TRIGGER jobs_delete AFTER DELETE ON jobs BEGIN
    UPDATE counts SET jobs = jobs - 1 WHERE state = old.state;
END;
"""

_COLUMNS = (
    "id, state, kind, source, inode, attempts, replay_of, created, finished, record, label, probability, error"
)


class Row(NamedTuple):
    """One job as the index has it; *record* is its JSON's path below the root."""

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


class Store:
    """The index; may be used from several threads."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._lock = threading.Lock()
        self.fresh = not path.exists()
        try:
            if read_only:
                self._db = sqlite3.connect(
                    f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False, timeout=10
                )
            else:
                self._db = sqlite3.connect(
                    path, isolation_level=None, check_same_thread=False, timeout=10
                )
                self._prepare()
        except sqlite3.Error as error:
            raise _unreadable(path, error) from error

    def _prepare(self) -> None:
        # The folders are the truth, so the index need not be synced to the disk at each commit.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(
                f"BEGIN;{_SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;"
            )
        elif version != SCHEMA_VERSION:
            raise FluxdropError(
                f"The index of jobs has version {version}, and this fluxdrop reads version {SCHEMA_VERSION}",
                hint="Move .fluxdrop/jobs.sqlite3 away; it is built again from outputs/.",
                kind="index",
            )

    def claimed(self, rows: Iterable[Row]) -> None:
        """Enter new jobs; one that is there already keeps what is known of it."""
        with self._transaction() as db:
            db.executemany(
                f"INSERT OR IGNORE INTO jobs ({_COLUMNS}) VALUES ({','.join('?' * len(Row._fields))})",
                rows,
            )

    def finished(self, rows: Iterable[Row]) -> None:
        """Enter how jobs ended, whether or not they are there."""
        with self._transaction() as db:
            for row in rows:
                db.execute(
                    f"INSERT INTO jobs ({_COLUMNS}) VALUES ({','.join('?' * len(Row._fields))})"
                    " ON CONFLICT (id) DO UPDATE SET state = excluded.state, finished = excluded.finished,"
                    " record = excluded.record, label = excluded.label,"
                    " probability = excluded.probability, error = excluded.error",
                    row,
                )

    def begin_attempt(self, job_ids: Iterable[str]) -> dict[str, int]:
        """Count one more attempt at each of *job_ids*; return how many each has had now."""
        counts = {}
        with self._transaction() as db:
            for job_id in job_ids:
                found = db.execute(
                    "UPDATE jobs SET attempts = attempts + 1 WHERE id = ? RETURNING attempts", (job_id,)
                ).fetchone()
                counts[job_id] = found[0] if found else 1
        return counts

    def get(self, job_id: str) -> Row | None:
        """The job *job_id*."""
        return next(iter(self._rows("WHERE id = ?", (job_id,))), None)

    def find(self, job: str) -> list[Row]:
        """The jobs that *job* can mean, at most 10: an id, its beginning, or a result's NAME."""
        beginning = (job, job + "\U0010ffff")
        return self._rows("WHERE id >= ? AND id < ? LIMIT 10", beginning) or self._rows(
            "WHERE record IN (?, ?) LIMIT 10",
            (f"outputs/{job}.json", f"outputs/failed/{job}.error.json"),
        )

    def by_inode(self, inode: int, since: str) -> Row | None:
        """The newest job whose input was the file with *inode*, created at *since* or later."""
        found = self._rows(
            "WHERE inode = ? AND created >= ? ORDER BY created DESC LIMIT 1", (inode, since)
        )
        return found[0] if found else None

    def latest(self, state: State, most: int) -> list[Row]:
        """The *most* jobs in *state* that finished last, newest first."""
        return self._rows("WHERE state = ? ORDER BY finished DESC LIMIT ?", (state, most))

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self._lock:
            return dict(self._db.execute("SELECT state, jobs FROM counts").fetchall())

    def close(self) -> None:
        """Close the index."""
        with self._lock:
            self._db.close()

    def _rows(self, where: str, values: tuple[Any, ...]) -> list[Row]:
        with self._lock:
            found = self._db.execute(f"SELECT {_COLUMNS} FROM jobs {where}", values).fetchall()  # noqa: S608
        return [Row(*row) for row in found]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def _unreadable(path: Path, error: sqlite3.Error) -> FluxdropError:
    return FluxdropError(
        f"{path} cannot be used: {error}",
        hint="If it is damaged, move it away; it is built again from outputs/.",
        kind="index",
    )
