"""Giving a file another name: a hard link, or a copy where linking fails, and never over another file.

Names are given relative to the descriptor of an open folder (`fluxdrop.folders`).
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from io import FileIO

from fluxdrop import faults
from fluxdrop.durable import open_regular_fd, temporary, wait_for
from fluxdrop.folders import has_name, rename_new

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK, errno.ENOSYS, errno.EACCES}
_CHUNK = 1 << 20


class NameTakenError(Exception):
    """Another file already has the name that was to be given."""


def give_name(
    source: str, name: str, folder: int, moved_on: Callable[[], None] = lambda: None
) -> None:
    """Let *name* in the open *folder* be a hard link to the file *source*, or a copy where linking
    fails; *moved_on* is called now and then while a large file is copied.

    Doing it again is harmless. Raises NameTakenError when another file has the name, else OSError.
    """
    try:
        os.link(source, name, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        if _is_link(source, name, folder):
            return
        # Linux looks whether the name is taken before it looks whether it could link.
        if _can_link(source, folder):
            raise NameTakenError(name) from None
        _give_copy(source, name, folder, moved_on)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _give_copy(source, name, folder, moved_on)


def move_name(source: str, name: str, folder: int) -> None:
    """Rename *source*, whatever it is, to *name* in the open *folder*. Raises as `give_name`."""
    try:
        rename_new(source, name, None, folder)
    except FileExistsError:
        raise NameTakenError(name) from None


def take_name_back(source: str, name: str, folder: int) -> None:
    """Remove *name* from the open *folder* if, and only if, `give_name` can have made it of *source*:
    if it is a hard link to it, or where linking fails a copy of it.
    """
    is_copy = _is_copy(source, name, folder) and not _can_link(source, folder)
    if is_copy or _is_link(source, name, folder):
        os.unlink(name, dir_fd=folder)


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
        if os.fstat(ours.fileno()).st_size != os.fstat(theirs.fileno()).st_size:
            return False
        while (data := ours.read(_CHUNK)) == theirs.read(_CHUNK):
            if not data:
                return True
            moved_on()
    return False


def _can_link(source: str, folder: int) -> bool:
    probe = f".{secrets.token_hex(8)}.fluxdrop.tmp"
    try:
        os.link(source, probe, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    os.unlink(probe, dir_fd=folder)
    return True


def _give_copy(source: str, name: str, folder: int, moved_on: Callable[[], None]) -> None:
    if has_name(name, folder):
        if _is_copy(source, name, folder, moved_on):
            return
        raise NameTakenError(name)
    with (
        FileIO(open_regular_fd(source, os.O_RDONLY)) as reader,
        temporary(folder) as (writer, unfinished),
    ):
        while data := reader.read(_CHUNK):
            writer.write(data)
            moved_on()
        wait_for(writer.fileno())
        faults.point("copy-written")
        _take_name(unfinished, name, folder)


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
