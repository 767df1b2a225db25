"""Classify errors of the filesystem: which are transient, so that the same work may succeed later."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fluxdrop.errors import FluxdropError, Outage

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""A disk is full, or a quota is used up."""
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
"""A disk or share is read-only, failing or cannot be reached."""
TRANSIENT = FULL | AWAY | {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE}
"""Errors that end once somebody makes room, mounts a share again or fixes permissions."""
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
    """Return whether *error* is an Outage or an OSError in `TRANSIENT`."""
    return isinstance(error, Outage) or (isinstance(error, OSError) and error.errno in TRANSIENT)


def is_full_or_away(error: BaseException) -> bool:
    """Return whether *error*, or the cause of a FluxdropError, is a full, read-only, failing or absent disk.

    The daemon's start waits for these. A missing permission is not among them: at the start it is
    more likely a mistake.
    """
    cause = error.__cause__ if isinstance(error, FluxdropError) else error
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in _SQLITE_AWAY
    return isinstance(cause, OSError) and cause.errno in FULL | AWAY


def is_full(error: BaseException | None) -> bool:
    """Return whether *error*, or the cause of a FluxdropError, is a full disk."""
    if isinstance(error, FluxdropError):
        error = error.__cause__
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in FULL


def reason_of(error: OSError | FluxdropError) -> str:
    """Return the text of *error*, or of the cause of a FluxdropError, without the file's name.

    A full disk always gives the same text, whichever library reported it.
    """
    if isinstance(error, FluxdropError):
        if is_full(error):
            return os.strerror(errno.ENOSPC)
        return reason_of(error.__cause__) if isinstance(error.__cause__, OSError) else error.message
    if error.errno in FULL:
        return os.strerror(errno.ENOSPC)
    return error.strerror or str(error)


def remedy_of(error: OSError) -> str:
    """Return a sentence that says what a person can do about *error*; empty if there is no general advice."""
    return _REMEDIES.get(error.errno or 0, "")


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Set *path* as the filename of an OSError that has none; operations on open files raise such errors."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise
