"""The index's file, before SQLite opens it and when it holds another's tables."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.files.folders import opened, set_aside


def refuse_other(path: Path) -> None:
    """SQLite follows a symlink to its file, and writes to what is there. Raises FluxdropError."""
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise FluxdropError(
                f"{path} is not a regular file",
                hint="Move it away; it is built again from outputs/.",
                kind="index",
            )


def is_other(error: sqlite3.Error) -> bool:
    """Whether *error* says that a file which SQLite can read has not the tables of an index."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR


def move_aside(path: Path) -> None:
    """Give the file *path*, which nobody has open, another name, and say so. Raises OSError."""
    # Loading it takes longer than all that `status` does.
    from fluxdrop.logs import get_logger

    with opened(path.parent) as folder:
        for name in (f"{path.name}-wal", f"{path.name}-shm"):
            with contextlib.suppress(FileNotFoundError):
                set_aside(name, folder)
        other = set_aside(path.name, folder)
    log = get_logger("fluxdrop.daemon")
    log.warning("moved aside, as it is no index of fluxdrop", path=str(path), to=other)
