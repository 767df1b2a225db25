"""Opening a file that nobody vouches for."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from io import BufferedReader, FileIO
from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.files.durable import NotRegularError, open_regular_fd
from fluxdrop.files.folders import open_folder

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


def is_file(path: Path) -> bool:
    """Whether there is a regular file *path* or a link to one, as far as this user may see."""
    try:
        return path.is_file()
    except OSError:
        return False


def open_given(path: Path) -> BufferedReader:
    """Open the regular file *path* that a person named, which may be a link to one, to read it; nothing is waited
    for. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return BufferedReader(FileIO(fd), _BUFFER)
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise NotRegularError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise NotRegularError(errno.EINVAL, "it is not a regular file", str(path))


def open_in_root(root: Path, path: Path, kind: str) -> BufferedReader:
    """`open_regular` the file *path*; of one in a folder of *root*, no part of the way below that
    folder may be a symlink."""
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ()
    if len(parts) < 2:
        return open_regular(path, kind)
    top, *folders, name = parts
    try:
        folder = open_folder(root / top, "/".join(folders))
    except OSError as error:
        if not is_its_own(error):
            raise
        raise FluxdropError(
            f"{path} cannot be read: a folder on the way is gone or is a symlink", kind=kind
        ) from error
    try:
        return open_regular(name, kind, str(path), folder)
    finally:
        os.close(folder)


def chunks(file: BufferedReader, most: int, name: str, size: int) -> Iterator[bytes]:
    """What is left of the open *file*, which an error calls *name*, in pieces of at most *size* bytes. Raises
    FluxdropError, kind ``unreadable``, when that is more than *most* bytes."""
    left = most
    while chunk := file.read(size):
        left -= len(chunk)
        if left < 0:
            raise FluxdropError(
                f"{name} grew over the limit of {most:,} bytes while it was being read",
                hint="Drop a copy of it to which nothing writes any more.",
                kind="unreadable",
            )
        yield chunk


def open_regular(
    path: Path | str, kind: str, name: str = "", folder: int | None = None
) -> BufferedReader:
    """Open the regular file *path*, relative to the open *folder* if one is given, to read it; no
    symlink is followed, and nothing is waited for. Errors call it *name*.

    Raises FluxdropError of *kind* for what is no such file, of the kind ``unreadable`` for what may
    not be read, OSError for a filesystem in trouble.
    """
    name = name or Path(path).name
    hint = "Drop a copy of it that is a regular file."
    try:
        fd = open_regular_fd(path, os.O_RDONLY, folder)
    except NotRegularError as error:
        raise FluxdropError(f"{name} is not a regular file", hint=hint, kind=kind) from error
    except OSError as error:
        if not is_its_own(error):
            raise
        reason = "it is a symlink" if error.errno == errno.ELOOP else error.strerror
        if error.errno in _FORBIDDEN:
            kind, hint = "unreadable", ALLOW
        raise FluxdropError(f"{name} cannot be read: {reason}", hint=hint, kind=kind) from error
    # `os.fdopen` would ask whether this is a terminal.
    return BufferedReader(FileIO(fd), _BUFFER)
