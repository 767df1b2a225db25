"""The index of jobs."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.schema import SCHEMA_VERSION
from fluxdrop.jobs.store import JobFilter, Store
from support.indexes import opened, row

ids = st.lists(st.sampled_from("abcdefgh"), max_size=4)


class AnyOrder(RuleBasedStateMachine):
    """Claims and ends in any order, repeated, in batches with repetitions."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(Path("/dev/null/never"), read_only=True)
        self.states: dict[str, str] = {}
        self.attempts: dict[str, int] = {}

    @rule(jobs=ids)
    def claim(self, jobs: list[str]) -> None:
        self.store.claimed(map(row, jobs))
        self.states = {**dict.fromkeys(jobs, "claimed"), **self.states}

    @rule(jobs=ids, state=st.sampled_from(["done", "failed"]))
    def finish(self, jobs: list[str], state: str) -> None:
        self.store.finished(row(job, state) for job in jobs)
        self.states |= dict.fromkeys(jobs, state)

    @rule(jobs=ids)
    def attempt(self, jobs: list[str]) -> None:
        counted = self.store.begin_attempt(jobs)
        for job in set(jobs):
            if job in self.states:
                self.attempts[job] = self.attempts.get(job, 0) + 1
        assert {job: self.attempts.get(job, 1) for job in jobs} == counted

    @invariant()
    def counts_are_right(self) -> None:
        states = list(self.states.values())
        expected = {state: states.count(state) for state in ("claimed", "done", "failed")}
        assert expected == self.store.counts()

    def teardown(self) -> None:
        self.store.close()


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=15)
TestAnyOrder = AnyOrder.TestCase


def test_failed_write_changes_nothing(tmp_path: Path) -> None:
    """A batch with a row that cannot be entered leaves the index as it was, and usable."""
    with opened(tmp_path) as store:
        with pytest.raises(sqlite3.IntegrityError):
            store.finished([row("a", "done"), row("b", "lost")])
        before = store.counts()
        store.finished([row("a", "done")])

        assert ({"claimed": 0, "done": 0, "failed": 0}, 1) == (before, store.counts()["done"])


def test_end_keeps_what_was_known(tmp_path: Path) -> None:
    """A job's end changes how it ended, and neither its input nor its attempts."""
    with opened(tmp_path) as store:
        store.claimed([row("a", inode=7)])
        store.begin_attempt(["a"])
        store.finished([row("a", "done", record="outputs/a.json", label="round", probability=0.9)])

        found = store.get("a")

    assert found is not None
    assert ("done", 7, 1, "round") == (found.state, found.inode, found.attempts, found.label)


def test_claim_again_keeps_the_attempts(tmp_path: Path) -> None:
    """A job that is taken up again after a restart keeps its count of attempts."""
    with opened(tmp_path) as store:
        store.claimed([row("a")])
        store.begin_attempt(["a"])
    with opened(tmp_path) as store:
        store.claimed([row("a")])

        assert {"a": 2} == store.begin_attempt(["a"])


def test_claims_that_never_were(tmp_path: Path) -> None:
    """Claimed jobs without a folder are forgotten; jobs that ended need none."""
    with opened(tmp_path) as store:
        store.claimed([row("a"), row("b"), row("c")])
        store.finished([row("c", "done")])

        forgotten = store.keep_claims(["b"])

        assert (1, {"claimed": 1, "done": 1, "failed": 0}) == (forgotten, store.counts())
        assert store.get("a") is None


def test_fresh_until_filled(tmp_path: Path) -> None:
    """An index is to be filled from outputs/ until that was done, also after a kill before it, and
    whatever jobs came meanwhile."""
    seen = []
    for _ in range(2):
        with opened(tmp_path) as store:
            store.claimed([row("new")])
            seen.append(store.fresh)
    with opened(tmp_path) as store:
        store.fill([row("a", "done", model="m")])
    with opened(tmp_path) as store:
        seen.append(store.fresh)
        models = [found.model for found in store.select(JobFilter())]

    assert ([True, True, False], [None, "m"]) == (seen, models)


def test_rows_that_sqlite_does_not_take(tmp_path: Path) -> None:
    """A row with a number or a text that no column takes is passed over and told of; the others are entered."""
    odd = [row("b", "done", attempts=2**64), row("c", "done", label="\ud800"), row("d", "odd")]
    with opened(tmp_path) as store:
        refused = store.fill([row("a", "done"), *odd, row("e", "done")])
        entered = store.select(JobFilter())

        assert (odd, ["e", "a"], False) == (refused, [one.id for one in entered], store.fresh)


OLDEST = """
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
CREATE TABLE counts (state TEXT PRIMARY KEY, jobs INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counts VALUES ('claimed', 0), ('done', 1), ('failed', 0);
INSERT INTO jobs (id, state, kind, source, attempts, created)
    VALUES ('a', 'done', 'picture', 'cat.png', 2, '2026-01-01T00:00:00.000Z');
PRAGMA user_version = 1;
"""
"""An index as fluxdrop made it before jobs had a model."""


def test_older_index(tmp_path: Path) -> None:
    """An older index is read as it is, and the daemon adds what it lacks and keeps what it knows."""
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as db:
        db.executescript(OLDEST)
    with opened(tmp_path, read_only=True) as store:
        before = store.select(JobFilter())
    with opened(tmp_path) as store:
        was_fresh = store.fresh
        store.fill([row("a", "done", model="m")])
    with opened(tmp_path, read_only=True) as store:
        (after,) = store.select(JobFilter(model="m"))

    assert (True, ["a"], [None]) == (was_fresh, [old.id for old in before], [before[0].model])
    assert (2, "m", {"claimed": 0, "done": 1, "failed": 0}) == (
        after.attempts,
        after.model,
        counts_of(tmp_path),
    )


def test_index_without_hosts(tmp_path: Path) -> None:
    """An index that an older fluxdrop made without hosts is read as it is, gets the column without being filled again,
    and stays one that the older fluxdrop can use."""
    with opened(tmp_path) as store:
        store.fill([row("a", "done")])
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as db:
        db.executescript("ALTER TABLE jobs DROP COLUMN host")
    with opened(tmp_path, read_only=True) as store:
        before = store.select(JobFilter())
    with opened(tmp_path) as store:
        was_fresh = store.fresh
        store.finished([row("b", "done", host="gpu-1")])
        after = store.select(JobFilter(host="gpu-1"))
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as db:
        db.execute(
            "INSERT INTO jobs (id, state, kind, source, created) VALUES ('c', 'done', '', '', '')"
        )
        (version,) = db.execute("PRAGMA user_version").fetchone()

    assert [("a", None)] == [(old.id, old.host) for old in before]
    assert (False, ["b"], SCHEMA_VERSION) == (was_fresh, [new.id for new in after], version)


def counts_of(folder: Path) -> dict[str, int]:
    """The counts of the index in *folder*."""
    with opened(folder, read_only=True) as store:
        return store.counts()


@pytest.mark.parametrize("read_only", [True, False])
def test_other_version(tmp_path: Path, read_only: bool) -> None:
    """An index of another version is refused, with the file's name, and left as it is."""
    path = tmp_path / "jobs.sqlite3"
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = path.read_bytes()

    with pytest.raises(FluxdropError, match=f"{path} has version {SCHEMA_VERSION + 1}") as caught:
        Store(path, read_only=read_only)

    assert ("index", before) == (caught.value.kind, path.read_bytes())


@pytest.mark.parametrize("read_only", [True, False])
def test_damaged_index(tmp_path: Path, read_only: bool) -> None:
    """A file that is no index is refused with what to do."""
    path = tmp_path / "jobs.sqlite3"
    path.write_bytes(b"no database " * 100)

    with pytest.raises(FluxdropError, match=r"built again from outputs/\."):
        Store(path, read_only=read_only)


OTHER_TABLES = {
    "without tables": f"DROP TABLE jobs; DROP TABLE counts; PRAGMA user_version = {SCHEMA_VERSION}",
    "without counts": "DROP TABLE counts",
    "without a column": "DROP INDEX jobs_by_model; ALTER TABLE jobs DROP COLUMN model",
    "old without tables": "DROP TABLE jobs; PRAGMA user_version = 1",
    "another program's": "PRAGMA user_version = 0",
}


@pytest.mark.parametrize("spoil", OTHER_TABLES.values(), ids=OTHER_TABLES)
def test_other_tables(tmp_path: Path, spoil: str) -> None:
    """A database that has not the tables of an index is moved aside for the daemon, which makes its own; who only reads
    is told what to do."""
    path = tmp_path / "jobs.sqlite3"
    with opened(tmp_path) as store:
        store.fill([row("a", "done")])
    with closing(sqlite3.connect(path)) as db:
        db.executescript(spoil)
    told = ""
    try:
        with opened(tmp_path, read_only=True) as store:
            assert {} == {state: jobs for state, jobs in store.counts().items() if jobs}
    except FluxdropError as error:
        told = error.hint
    with opened(tmp_path) as store:
        found = store.fresh, store.counts()["done"]
        store.fill([row("b", "done")])

    assert (True, 0) == found
    assert "user_version = 0" in spoil or "built again from outputs/" in told
    assert ["jobs.sqlite3", "jobs.sqlite3-not-ours-1"] == sorted(
        path.name for path in tmp_path.iterdir()
    )


@pytest.mark.parametrize("exists", [True, False])
def test_reading_what_is_not_there_yet(tmp_path: Path, exists: bool) -> None:
    """For a reader, an index that is missing or was just begun is empty, and is not made."""
    if exists:
        (tmp_path / "jobs.sqlite3").touch()

    with opened(tmp_path, read_only=True) as store:
        found = (store.get("a"), store.find("a"), store.by_inode(1, ""), store.latest("done", 5))

    assert (None, [], [], []) == found
    assert [b""] * exists == [path.read_bytes() for path in tmp_path.iterdir()]


def test_reader_cannot_write(tmp_path: Path) -> None:
    """A reader's index takes no jobs."""
    with opened(tmp_path) as store:
        store.claimed([row("a")])

    with opened(tmp_path, read_only=True) as store, pytest.raises(OSError, match="readonly"):
        store.claimed([row("b")])


def test_read_while_written(tmp_path: Path) -> None:
    """A reader sees whole batches while a writer is in the middle of them."""
    batch = 50
    with opened(tmp_path) as writer:

        def write() -> None:
            for n in range(40):
                writer.claimed(row(f"{n}-{m}") for m in range(batch))

        thread = threading.Thread(target=write)
        thread.start()
        seen = []
        while thread.is_alive():
            with opened(tmp_path, read_only=True) as reader:
                seen.append(reader.counts()["claimed"])
        thread.join()
        final = writer.counts()["claimed"]

    assert (40 * batch, set()) == (final, {count % batch for count in seen} - {0})
    assert sorted(seen) == seen
