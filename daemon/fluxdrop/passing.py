"""Which errors of the filesystem pass by themselves, or when somebody mends what is wrong."""

from __future__ import annotations

import errno
import os
import sqlite3

from fluxdrop.errors import FluxdropError, Outage

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
PASSING = FULL | {
    errno.EROFS,
    errno.EIO,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
    errno.ETIMEDOUT,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
}
"""What passes when somebody makes room, mounts a share again or mends permissions."""


def is_passing(error: BaseException) -> bool:
    """Whether *error* is of a kind that passes."""
    return isinstance(error, Outage) or (isinstance(error, OSError) and error.errno in PASSING)


def is_full(error: BaseException | None) -> bool:
    """Whether *error*, or what a FluxdropError was made of, is a full disk."""
    if isinstance(error, FluxdropError):
        error = error.__cause__
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in FULL


def reason_of(error: OSError | Outage) -> str:
    """What *error* says, without the file; the same of a full disk whoever met it."""
    if isinstance(error, Outage):
        return error.message
    if error.errno in FULL:
        return os.strerror(errno.ENOSPC)
    return error.strerror or str(error)
