"""The tables of the index, and the versions of its schema."""

from __future__ import annotations

from typing import Literal

State = Literal["claimed", "done", "failed"]

SCHEMA_VERSION = 3
UNFILLED = 2
"""The version while the tables are current and outputs/ was not read into them yet."""
WITHOUT_MODEL = 1
"""The version before jobs had a model."""
LATER_COLUMNS = ("model", "host")
"""What was added to the table of jobs later, the oldest first.

An index without `host` has the same version, as an older fluxdrop can use one with it.
"""

LATER_INDEXES = """
CREATE INDEX jobs_by_label ON jobs (label);
CREATE INDEX jobs_by_model ON jobs (model);
CREATE INDEX jobs_by_original ON jobs (replay_of);
"""
SCHEMA = """
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
    error TEXT,
    model TEXT,
    host TEXT
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
