"""Publishing one file under another name: a hard link, or a copy where linking fails; no file is ever replaced.

The name is relative to the descriptor of an open folder (`fluxdrop.files.folders`).
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import ExitStack
from io import FileIO

from fluxdrop import failpoints
from fluxdrop.files.durable import NOT_REGULAR, open_regular_fd, temporary, wait_for
from fluxdrop.files.folders import has_name, rename_new

_LINKING_FAILED = {
    errno.EPERM,
    errno.ENOTSUP,
    errno.EXDEV,
    errno.EMLINK,
    errno.ENOSYS,
    errno.EACCES,
}
_CHUNK = 1 << 20


class NameTakenError(Exception):
    """Another file already has the name."""


class NotCopiedError(Exception):
    """A file that cannot be linked cannot be copied either: too large, not readable or no regular file.

    The message says which.
    """


def link_or_copy(
    source: str,
    name: str,
    folder: int,
    on_progress: Callable[[], None] = lambda: None,
    max_bytes: int | None = None,
) -> None:
    """Make *name* a hard link to *source*, or a copy of it where linking fails.

    Calling it again is harmless.

    Args:
        source: The path of the file.
        name: The new name in *folder*.
        folder: The descriptor of an open folder.
        on_progress: Called at least once for each MiB that is copied.
        max_bytes: The largest file that is copied; None for any.

    Raises:
        NameTakenError: Another file has the name.
        NotCopiedError: Linking fails, and *source* cannot be copied.
        OSError: The disk is full or not available.
    """
    if _link(source, name, folder) != 0:
        _copy(source, name, folder, on_progress, max_bytes)


def try_link_or_copy(
    source: str, name: str, folder: int, on_progress: Callable[[], None], max_bytes: int
) -> bool:
    """Call `link_or_copy`, unless *source* has to be moved; return False then.

    It is copied only because *folder* is on another filesystem. In all other cases a file that cannot be linked is to
    be moved: its owner may have made it larger than any disk, and may have forbidden to read it. So *source* must be
    a file that need not be kept. Takes and raises what `link_or_copy` does.
    """
    if not stat.S_ISREG(os.lstat(source).st_mode):
        return False
    error = _link(source, name, folder)
    if error == errno.EXDEV:
        _copy(source, name, folder, on_progress, max_bytes)
    return error in (0, errno.EXDEV)


def move(source: str, name: str, folder: int) -> None:
    """Rename *source*, whatever it is, to *name* in the open *folder*. Raises what `link_or_copy` does."""
    try:
        rename_new(source, name, None, folder)
    except FileExistsError:
        raise NameTakenError(name) from None
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise NotCopiedError("it is on another filesystem and is not a regular file") from error


def unlink_or_remove_copy(source: str, name: str, folder: int) -> None:
    """Remove *name* from the open *folder* if `link_or_copy` can have made it of *source*.

    That is: if it is a hard link to *source*, or, where linking fails, a copy of it. Raises OSError.
    """
    is_copy = _is_copy(source, name, folder) and _link_error(source, folder) != 0
    if is_copy or _is_link(source, name, folder):
        os.unlink(name, dir_fd=folder)


def _link(source: str, name: str, folder: int) -> int:
    """Make *name* in the open *folder* a hard link to *source*.

    Returns:
        0, also if it is one already, or the errno with which linking fails.

    Raises:
        NameTakenError: Another file has the name.
        OSError: The disk is full or not available.
    """
    try:
        os.link(source, name, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        if _is_link(source, name, folder):
            return 0
        # Linux checks whether the name is taken before it checks whether it could link.
        number = _link_error(source, folder)
        if number == 0:
            raise NameTakenError(name) from None
        return number
    except OSError as error:
        if error.errno not in _LINKING_FAILED:
            raise
        return error.errno
    return 0


def _is_link(source: str, name: str, folder: int) -> bool:
    """Return whether *name* in the open *folder* is a hard link to *source*."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return os.path.samestat(os.lstat(source), found)
    except FileNotFoundError:
        return False


def _is_copy(
    source: str, name: str, folder: int, on_progress: Callable[[], None] = lambda: None
) -> bool:
    """Return whether *name* in the open *folder* is a regular file with the contents of *source*."""
    with ExitStack() as files:
        try:
            ours = files.enter_context(FileIO(open_regular_fd(source, os.O_RDONLY)))
            theirs = files.enter_context(FileIO(open_regular_fd(name, os.O_RDONLY, folder)))
        except OSError:
            return False
        left = os.fstat(ours.fileno()).st_size
        if left != os.fstat(theirs.fileno()).st_size:
            return False
        # Not to the end of the file: somebody may be appending to it.
        while left > 0:
            data = ours.read(min(left, _CHUNK))
            if not data or data != theirs.read(len(data)):
                return False
            left -= len(data)
            on_progress()
    return True


def _link_error(source: str, folder: int) -> int:
    """Return the errno with which linking *source* into the open *folder* fails, or 0. Raises OSError."""
    probe = f".{secrets.token_hex(8)}.fluxdrop.tmp"
    try:
        os.link(source, probe, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _LINKING_FAILED:
            raise
        return error.errno
    os.unlink(probe, dir_fd=folder)
    return 0


def _copy(
    source: str, name: str, folder: int, on_progress: Callable[[], None], max_bytes: int | None
) -> None:
    """Make *name* in the open *folder* a copy of *source*, unless it already is one. See `link_or_copy`."""
    if has_name(name, folder):
        if _is_copy(source, name, folder, on_progress):
            return
        raise NameTakenError(name)
    with FileIO(_open_source(source)) as reader, temporary(folder) as (writer, unfinished):
        left = os.fstat(reader.fileno()).st_size
        if max_bytes is not None and left > max_bytes:
            raise NotCopiedError(f"it is larger than {max_bytes} bytes")
        # Not to the end of the file: somebody may be appending to it.
        while left > 0 and (data := reader.read(min(left, _CHUNK))):
            writer.write(data)
            left -= len(data)
            on_progress()
        wait_for(writer.fileno())
        failpoints.reach("copy-written")
        _rename_new(unfinished, name, folder)


def _open_source(source: str) -> int:
    """Open the regular file *source* to read it. Raises NotCopiedError or OSError."""
    try:
        return open_regular_fd(source, os.O_RDONLY)
    except PermissionError as error:
        raise NotCopiedError("it may not be read") from error
    except OSError as error:
        if error.errno not in NOT_REGULAR - {errno.ENOENT}:
            raise
        raise NotCopiedError("it is not a regular file") from error


def _rename_new(unfinished: str, name: str, folder: int) -> None:
    """Rename the file *unfinished* to *name*, both in the open *folder*. Raises NameTakenError or OSError."""
    try:
        try:
            os.link(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _LINKING_FAILED:
                raise
            rename_new(unfinished, name, folder, folder)
    except FileExistsError:
        raise NameTakenError(name) from None
