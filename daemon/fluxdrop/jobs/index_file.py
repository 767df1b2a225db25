"""Checks on the index's file: before SQLite opens it, and when it is another program's database."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.files.folders import opened, set_aside


def refuse_other(path: Path) -> None:
    """Raise FluxdropError if *path* is not a regular file: SQLite would follow a symlink and write there."""
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise FluxdropError(
                f"{path} is not a regular file",
                hint="Move it away; it is built again from outputs/.",
                kind="index",
            )


def is_other(error: sqlite3.Error) -> bool:
    """Return whether *error* means that the file is a database without the tables of an index."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR


def move_aside(path: Path) -> None:
    """Rename the file *path*, which no process has open, and log it. Raise OSError."""
    # Imported here because it takes longer than everything that `fluxdrop status` does.
    from fluxdrop.logs import get_logger

    with opened(path.parent) as folder:
        for name in (f"{path.name}-wal", f"{path.name}-shm"):
            with contextlib.suppress(FileNotFoundError):
                set_aside(name, folder)
        other = set_aside(path.name, folder)
    log = get_logger("fluxdrop.daemon")
    log.warning("moved aside, as it is not an index of fluxdrop", path=str(path), to=other)
