"""Which errors of the filesystem pass by themselves, or when somebody mends what is wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fluxdrop.errors import FluxdropError, Outage

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
AWAY = frozenset(
    {
        errno.EROFS,
        errno.EIO,
        errno.ESTALE,
        errno.ENOTCONN,
        errno.EHOSTDOWN,
        errno.ETIMEDOUT,
    }
)
PASSING = FULL | AWAY | {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE}
"""What passes when somebody makes room, mounts a share again or mends permissions."""
_SQLITE_AWAY = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR}

_REMEDIES = {
    **dict.fromkeys(
        AWAY | {errno.ENOENT, errno.ENOTDIR},
        "See whether the disk or share that it belongs to is mounted and well.",
    ),
    **dict.fromkeys(FULL, "Make room there."),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM),
        "Give this user the right to it, or run the command as a user who has it.",
    ),
    errno.EROFS: "Mount it so that it can be written to; a disk with errors is made read-only by the system.",
    errno.EMFILE: "Raise the limit of open files: ulimit -n.",
}


def is_transient(error: BaseException) -> bool:
    """Whether *error* is of a kind that passes."""
    return isinstance(error, Outage) or (isinstance(error, OSError) and error.errno in PASSING)


def is_full_or_away(error: BaseException) -> bool:
    """Whether *error*, or what a FluxdropError was made of, is a disk that is full, read-only, failing or away: what a
    start waits for. A permission that is missing then is somebody's mistake rather."""
    cause = error.__cause__ if isinstance(error, FluxdropError) else error
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in _SQLITE_AWAY
    return isinstance(cause, OSError) and cause.errno in FULL | AWAY


def is_full(error: BaseException | None) -> bool:
    """Whether *error*, or what a FluxdropError was made of, is a full disk."""
    if isinstance(error, FluxdropError):
        error = error.__cause__
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in FULL


def reason_of(error: OSError | FluxdropError) -> str:
    """What *error*, or what a FluxdropError was made of, says, without the file; the same of a full disk whoever met
    it."""
    if isinstance(error, FluxdropError):
        if is_full(error):
            return os.strerror(errno.ENOSPC)
        return reason_of(error.__cause__) if isinstance(error.__cause__, OSError) else error.message
    if error.errno in FULL:
        return os.strerror(errno.ENOSPC)
    return error.strerror or str(error)


def remedy_of(error: OSError) -> str:
    """What a person does about *error*, in a sentence; nothing where that depends."""
    return _REMEDIES.get(error.errno or 0, "")


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError that names no file, as those of open files, name *path*."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise
