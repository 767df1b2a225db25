"""Open and read files that come from untrusted users."""

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
"""The hint for a file that the daemon may not read."""

_BUFFER_BYTES = 1 << 16
_FORBIDDEN = (errno.EACCES, errno.EPERM)
# Errors about the one file; any other is about the filesystem and may pass.
_FILE_ERRORS = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENXIO,
    errno.ENAMETOOLONG,
    # Another process has a lease on it (fcntl(2), F_SETLEASE).
    errno.EAGAIN,
}


def is_file_error(error: OSError) -> bool:
    """Return whether *error* is about the one file that was opened, and not about its filesystem."""
    return error.errno in _FILE_ERRORS


def is_file(path: Path) -> bool:
    """Return whether *path* is a regular file or a link to one; False if this user may not look."""
    try:
        return path.is_file()
    except OSError:
        return False


def open_given(path: Path) -> BufferedReader:
    """Open the regular file *path*, which a person named, to read it. Follow links; never block.

    Raises:
        NotRegularError: It is not a regular file.
        OSError: It cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return BufferedReader(FileIO(fd), _BUFFER_BYTES)
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise NotRegularError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise NotRegularError(errno.EINVAL, "it is not a regular file", str(path))


def open_in_root(root: Path, path: Path, kind: str) -> BufferedReader:
    """Open the regular file *path* to read it, as `open_regular` does.

    Args:
        root: The root. The folders directly in it may be symlinks, no part of a path below them.
        path: The file; one that is not below *root* is opened by `open_regular` alone.
        kind: The kind of the errors.

    Raises:
        FluxdropError: Of *kind* if there is no such regular file or a folder above it is gone or is a
            symlink, of kind ``unreadable`` if it may not be read.
        OSError: The filesystem failed.
    """
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ()
    if len(parts) < 2:
        return open_regular(path, kind)
    top, *folders, name = parts
    try:
        folder = open_folder(root / top, "/".join(folders))
    except OSError as error:
        if not is_file_error(error):
            raise
        raise FluxdropError(
            f"{path} cannot be read: a folder on the way is gone or is a symlink", kind=kind
        ) from error
    try:
        return open_regular(name, kind, str(path), folder)
    finally:
        os.close(folder)


def chunks(file: BufferedReader, max_bytes: int, name: str, size: int) -> Iterator[bytes]:
    """Yield the rest of a file in pieces.

    Args:
        file: The open file.
        max_bytes: The most bytes that there may be.
        name: What an error calls the file.
        size: The most bytes of a piece.

    Raises:
        FluxdropError: There are more than *max_bytes* bytes; kind ``unreadable``.
    """
    left = max_bytes
    while chunk := file.read(size):
        left -= len(chunk)
        if left < 0:
            raise FluxdropError(
                f"{name} grew over the limit of {max_bytes:,} bytes while it was being read",
                hint="Drop a copy of it to which nothing writes any more.",
                kind="unreadable",
            )
        yield chunk


def open_regular(
    path: Path | str, kind: str, name: str = "", folder: int | None = None
) -> BufferedReader:
    """Open a regular file to read it. Do not follow it if it is a symlink; never block.

    Args:
        path: The file, relative to *folder* if one is given.
        kind: The kind of the errors.
        name: What errors call the file; its own name by default.
        folder: The descriptor of an open folder.

    Raises:
        FluxdropError: Of *kind* if there is no such regular file, of kind ``unreadable`` if it may
            not be read.
        OSError: The filesystem failed.
    """
    name = name or Path(path).name
    hint = "Drop a copy of it that is a regular file."
    try:
        fd = open_regular_fd(path, os.O_RDONLY, folder)
    except NotRegularError as error:
        raise FluxdropError(f"{name} is not a regular file", hint=hint, kind=kind) from error
    except OSError as error:
        if not is_file_error(error):
            raise
        reason = "it is a symlink" if error.errno == errno.ELOOP else error.strerror
        if error.errno in _FORBIDDEN:
            kind, hint = "unreadable", ALLOW
        raise FluxdropError(f"{name} cannot be read: {reason}", hint=hint, kind=kind) from error
    # `os.fdopen` would make another system call, to see whether this is a terminal.
    return BufferedReader(FileIO(fd), _BUFFER_BYTES)
