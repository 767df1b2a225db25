"""Open folders that others can write to, one level at a time, so that no part of a path is a symlink.

An operation relative to a folder's descriptor acts in that folder, even if something else takes its
name, or the name of a parent, meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

STATE = ".fluxdrop"
"""The state folder's name. `opened` follows no symlink at or below a folder of this name."""

MAX_LEVELS = 100
"""Deeper folders are not read: no person makes them, and opening one costs a call for each level."""

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NOFOLLOW_FLAGS = _FLAGS | os.O_NOFOLLOW
_MAX_TRIES = 20
# PATH_MAX, less room for a file's name and for what the path of its result adds.
_MAX_PATH_BYTES = 4096 - 512

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_NO_RENAMEAT2 = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}


class Folders:
    """A cache of open folders below *top*, which is the only part of a path that may be a symlink.

    The cache saves calls, since consecutive files mostly lie in the same few folders. Keep it for a
    short time only: a folder that is open may have been moved elsewhere.

    Args:
        top: The folder above all others.
        max_open: How many folders stay open until `close`; the least recently used one is closed first.
        is_ours: Whether the folder at a path below *top* is the daemon's own. If something else has
            the name when `fd` has to make such a folder, or another user's folder that the daemon
            cannot open, it is moved aside.
        on_aside: Called with the old and the new path of what was moved aside.
    """

    def __init__(
        self,
        top: Path,
        max_open: int = 1,
        is_ours: Callable[[str], bool] = lambda _folder: False,
        on_aside: Callable[[str, str], None] = lambda _old, _new: None,
    ) -> None:
        self._top = top
        self._max_open = max_open
        self._is_ours = is_ours
        self._on_aside = on_aside
        self._open: dict[str, int] = {}

    def fd(self, folder: str, *, make: bool = False) -> int:
        """Return the descriptor of *folder*, a path below the top. It is valid until the next call.

        With *make*, missing parts of the path are created.

        Raises:
            NotADirectoryError: A part of the path is a symlink or is not a folder.
            OSError: It cannot be opened or created.
        """
        fd = self._open.pop(folder, None)
        if fd is not None:
            self._open[folder] = fd
            return fd
        path, missing = folder, []
        while path and path not in self._open:
            path, _, name = path.rpartition("/")
            missing.append(name)
        fd = self._open.get(path)
        if fd is None:
            fd = self._keep("", os.open(self._top, _FLAGS))
        for name in reversed(missing):
            path = f"{path}/{name}" if path else name
            fd = self._keep(path, self._enter(fd, path, name, make))
        return fd

    def forget(self) -> None:
        """Close all folders, so that later calls open them again: one of them may be gone."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    close = forget

    def _keep(self, folder: str, fd: int) -> int:
        while len(self._open) >= self._max_open:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[folder] = fd
        return fd

    def _enter(self, parent: int, path: str, name: str, make: bool) -> int:
        if name in ("", ".", ".."):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        for _ in range(_MAX_TRIES if make else 0):
            try:
                return os.open(name, _NOFOLLOW_FLAGS, dir_fd=parent)
            except FileNotFoundError:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=parent)
            except (NotADirectoryError, PermissionError) as error:
                is_closed = isinstance(error, PermissionError)
                if not self._is_ours(path) or (is_closed and _is_own(name, parent)):
                    raise
                # Another user who can write here may do it again, so this is tried several times.
                with suppress(FileNotFoundError):
                    self._on_aside(path, path[: -len(name)] + set_aside(name, parent))
        return os.open(name, _NOFOLLOW_FLAGS, dir_fd=parent)


def _is_own(name: str, folder: int) -> bool:
    return os.stat(name, dir_fd=folder, follow_symlinks=False).st_uid == os.geteuid()


def open_folder(top: Path, folder: str) -> int:
    """Open *folder*, a path below *top*, and return its descriptor.

    Each level is opened by itself, so that no part of the path below *top* is a symlink.
    """
    fd = os.open(top, _FLAGS)
    for part in folder.split("/") if folder else ():
        try:
            child = os.open(part, _NOFOLLOW_FLAGS, dir_fd=fd)
        finally:
            os.close(fd)
        fd = child
    return fd


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Yield the descriptor of the folder *path*; close it at the end.

    In a path that contains .fluxdrop, neither that nor any later part may be a symlink.
    """
    parts = path.parts
    start = parts.index(STATE) if STATE in parts else len(parts)
    fd = open_folder(Path(*parts[:start]), "/".join(parts[start:]))
    try:
        yield fd
    finally:
        os.close(fd)


class _Listing(NamedTuple):
    """A folder whose entries are being read."""

    folder: str
    """The path below the top."""
    fd: int
    entries: AbstractContextManager[Iterator[os.DirEntry[str]]]
    """What `os.scandir` returned, to be closed."""
    left: Iterator[os.DirEntry[str]]
    """The entries that were not read yet."""


def files_below(
    top: Path,
    below: str = "",
    skip: Callable[[str], bool] = lambda _name: False,
    on_error: Callable[[str, OSError], None] = lambda _folder, _error: None,
) -> Generator[str, None, None]:
    """Yield the files in *top* and its subfolders as paths relative to *top*; follow no symlink.

    A folder that vanishes is passed over. Entries are read one at a time, so the memory used does not
    grow with their number.

    Args:
        top: The folder above all others.
        below: A path below *top*; only files there are yielded. Empty for all.
        skip: Whether to leave out the files and folders with a name.
        on_error: Called with each folder that cannot be read, lies too deep or has too long a path,
            and the reason.
    """
    listings: list[_Listing] = []
    max_bytes = _MAX_PATH_BYTES - len(os.fsencode(top))

    def enter(folder: str, open_it: Callable[[], int]) -> None:
        try:
            if folder.count("/") >= MAX_LEVELS:
                raise OSError(errno.ENAMETOOLONG, "it is too deep", folder)
            if len(os.fsencode(folder)) > max_bytes:
                raise OSError(errno.ENAMETOOLONG, "its path is too long", folder)
            fd = open_it()
            try:
                entries = os.scandir(fd)
            except OSError:
                os.close(fd)
                raise
            listings.append(_Listing(folder, fd, entries, iter(entries)))
        except OSError as error:
            if not folder or not isinstance(error, FileNotFoundError):
                on_error(folder, error)

    def leave() -> None:
        listing = listings.pop()
        listing.entries.__exit__(None, None, None)
        os.close(listing.fd)

    enter(below, partial(open_folder, top, below))
    try:
        while listings:
            folder, fd, _, left = listings[-1]
            try:
                entry = next(left, None)
                is_folder = entry is not None and entry.is_dir(follow_symlinks=False)
            except OSError as error:
                on_error(folder, error)
                leave()
                continue
            if entry is None:
                leave()
                continue
            if skip(entry.name):
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            if is_folder:
                enter(path, partial(os.open, entry.name, _NOFOLLOW_FLAGS, dir_fd=fd))
            else:
                yield path
    finally:
        while listings:
            leave()


def set_aside(name: str, folder: int) -> str:
    """Rename *name* in the open *folder* to an unused NAME-not-ours-NUMBER; return the new name."""
    for number in itertools.count(1):
        new_name = f"{name}-not-ours-{number}"
        with suppress(FileExistsError):
            rename_new(name, new_name, folder, folder)
            return new_name
    raise AssertionError("unreachable: the numbers do not end")


def rename_new(source: str, target: str, source_folder: int | None, folder: int) -> None:
    """Rename a file without replacing another.

    Where the kernel or filesystem has no such rename, this looks first and then renames.

    Args:
        source: A name in *source_folder*, or a path.
        target: The new name, in *folder*.
        source_folder: The descriptor of an open folder; None if *source* is a path.
        folder: The descriptor of an open folder.

    Raises:
        FileExistsError: Something has the name *target*.
        OSError: The rename failed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        start = _AT_FDCWD if source_folder is None else source_folder
        names = os.fsencode(source), os.fsencode(target)
        if libc.renameat2(start, names[0], folder, names[1], _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _NO_RENAMEAT2:
            raise OSError(number, os.strerror(number), source, None, target)
    if has_name(target, folder):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    os.rename(source, target, src_dir_fd=source_folder, dst_dir_fd=folder)


def has_name(name: str, folder: int) -> bool:
    """Return whether anything in the open *folder* has the *name*, a dangling symlink included."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
