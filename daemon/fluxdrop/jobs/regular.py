"""Opening a file that nobody vouches for."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader, FileIO
from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.intake.scan import open_folder

ALLOW = (
    "Give the user that runs the daemon the right to read it (chmod a+r, or chmod g+r where they share"
    " a group), then drop it again."
)
"""What is to be done about a file that may not be read."""

_BUFFER = 1 << 16
_FORBIDDEN = (errno.EACCES, errno.EPERM)
# What is wrong with the one file; any other reason is the filesystem's and may pass.
_ITS_OWN = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENXIO,
    errno.ENAMETOOLONG,
}


def is_its_own(error: OSError) -> bool:
    """Whether *error* is about the one file that was to be opened, and not about its filesystem."""
    return error.errno in _ITS_OWN


def open_regular(
    path: Path, kind: str, name: str = "", *, folder: int | None = None
) -> BufferedReader:
    """Open the regular file *path* to read it, in the open *folder* if one is given; its name is
    followed through no symlink, and nothing is waited for. Errors call it *name*.

    Raises FluxdropError of *kind* for what is no such file, of the kind ``unreadable`` for what may
    not be read, OSError for a filesystem in trouble.
    """
    name = name or path.name
    hint = "Drop a copy of it that is a regular file."
    try:
        fd = os.open(
            path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
    except OSError as error:
        if not is_its_own(error):
            raise
        reason = "it is a symlink" if error.errno == errno.ELOOP else error.strerror
        if error.errno in _FORBIDDEN:
            kind, hint = "unreadable", ALLOW
        raise FluxdropError(f"{name} cannot be read: {reason}", hint=hint, kind=kind) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FluxdropError(f"{name} is not a regular file", hint=hint, kind=kind)
    # `os.fdopen` would ask whether this is a terminal.
    return BufferedReader(FileIO(fd), _BUFFER)


def open_below(root: Path, path: Path, kind: str) -> BufferedReader:
    """`open_regular` for *path* in a folder of *root* that others may write to, such as outputs/:
    of the way from that folder on, no part is a symlink.
    """
    top, *folders, name = path.relative_to(root).parts
    try:
        folder = open_folder(root / top, "/".join(folders))
    except OSError as error:
        if not is_its_own(error):
            raise
        raise FluxdropError(
            f"{path} cannot be read: a folder on the way is gone or is a symlink", kind=kind
        ) from error
    try:
        return open_regular(Path(name), kind, str(path), folder=folder)
    finally:
        os.close(folder)
