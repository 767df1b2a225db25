"""Giving a file another name: a hard link, or a copy where linking fails, and never over another file.

Names are given relative to the descriptor of an open folder (`fluxdrop.files.folders`).
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

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK, errno.ENOSYS, errno.EACCES}
_CHUNK = 1 << 20


class NameTakenError(Exception):
    """Another file already has the name that was to be given."""


class NotCopiedError(Exception):
    """A file that can only be copied is too large for that, may not be read or is no file; says which."""


def give_name(
    source: str,
    name: str,
    folder: int,
    moved_on: Callable[[], None] = lambda: None,
    most: int | None = None,
) -> None:
    """Let *name* in the open *folder* be a hard link to the file *source*, or a copy where linking
    fails, of *most* bytes at most; *moved_on* is called now and then while a large file is copied.

    Doing it again is harmless. Raises NameTakenError when another file has the name, NotCopiedError,
    else OSError.
    """
    if _link(source, name, folder) != 0:
        _give_copy(source, name, folder, moved_on, most)


def give_unmoved(
    source: str, name: str, folder: int, moved_on: Callable[[], None], most: int
) -> bool:
    """Give the file *source*, which needs not be kept, the *name* in the open *folder* as `give_name` does, if that
    takes a link, or a copy because *folder* is on another filesystem. False where it is to be moved: whoever owns it
    may have made it larger than any disk, and may not let it be read."""
    if not stat.S_ISREG(os.lstat(source).st_mode):
        return False
    reason = _link(source, name, folder)
    if reason == errno.EXDEV:
        _give_copy(source, name, folder, moved_on, most)
    return reason in (0, errno.EXDEV)


def move_name(source: str, name: str, folder: int) -> None:
    """Rename *source*, whatever it is, to *name* in the open *folder*. Raises as `give_name`."""
    try:
        rename_new(source, name, None, folder)
    except FileExistsError:
        raise NameTakenError(name) from None
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise NotCopiedError("it lies on another filesystem and is no regular file") from error


def take_name_back(source: str, name: str, folder: int) -> None:
    """Remove *name* from the open *folder* if, and only if, `give_name` can have made it of *source*:
    if it is a hard link to it, or where linking fails a copy of it.
    """
    is_copy = _is_copy(source, name, folder) and _why_not(source, folder) != 0
    if is_copy or _is_link(source, name, folder):
        os.unlink(name, dir_fd=folder)


def _link(source: str, name: str, folder: int) -> int:
    """Let *name* in the open *folder* be a hard link to *source*; 0, or the number of the error where linking
    fails."""
    try:
        os.link(source, name, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        if _is_link(source, name, folder):
            return 0
        # Linux looks whether the name is taken before it looks whether it could link.
        reason = _why_not(source, folder)
        if reason == 0:
            raise NameTakenError(name) from None
        return reason
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return error.errno
    return 0


def _is_link(source: str, name: str, folder: int) -> bool:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return os.path.samestat(os.lstat(source), found)
    except FileNotFoundError:
        return False


def _is_copy(
    source: str, name: str, folder: int, moved_on: Callable[[], None] = lambda: None
) -> bool:
    with ExitStack() as files:
        try:
            ours = files.enter_context(FileIO(open_regular_fd(source, os.O_RDONLY)))
            theirs = files.enter_context(FileIO(open_regular_fd(name, os.O_RDONLY, folder)))
        except OSError:
            return False
        left = os.fstat(ours.fileno()).st_size
        if left != os.fstat(theirs.fileno()).st_size:
            return False
        # Not to the end: somebody may be writing there.
        while left > 0:
            data = ours.read(min(left, _CHUNK))
            if not data or data != theirs.read(len(data)):
                return False
            left -= len(data)
            moved_on()
    return True


def _why_not(source: str, folder: int) -> int:
    """The number of the error with which linking *source* into the open *folder* fails, or 0."""
    probe = f".{secrets.token_hex(8)}.fluxdrop.tmp"
    try:
        os.link(source, probe, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return error.errno
    os.unlink(probe, dir_fd=folder)
    return 0


def _give_copy(
    source: str, name: str, folder: int, moved_on: Callable[[], None], most: int | None
) -> None:
    if has_name(name, folder):
        if _is_copy(source, name, folder, moved_on):
            return
        raise NameTakenError(name)
    with FileIO(_open_source(source)) as reader, temporary(folder) as (writer, unfinished):
        left = os.fstat(reader.fileno()).st_size
        if most is not None and left > most:
            raise NotCopiedError(f"it is larger than {most} bytes")
        # Not to the end: somebody may be writing there.
        while left > 0 and (data := reader.read(min(left, _CHUNK))):
            writer.write(data)
            left -= len(data)
            moved_on()
        wait_for(writer.fileno())
        failpoints.reach("copy-written")
        _take_name(unfinished, name, folder)


def _open_source(source: str) -> int:
    try:
        return open_regular_fd(source, os.O_RDONLY)
    except PermissionError as error:
        raise NotCopiedError("it may not be read") from error
    except OSError as error:
        if error.errno not in NOT_REGULAR - {errno.ENOENT}:
            raise
        raise NotCopiedError("it is no regular file") from error


def _take_name(unfinished: str, name: str, folder: int) -> None:
    """Give the file *unfinished* in the open *folder* its *name*, which nothing loses by it."""
    try:
        try:
            os.link(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            rename_new(unfinished, name, folder, folder)
    except FileExistsError:
        raise NameTakenError(name) from None
