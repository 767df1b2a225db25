"""Folders that others can write to, opened step by step, so that no part of the way is a symlink.

What is done relative to a folder's descriptor is done in that folder, whatever takes its name or a
name above it meanwhile.
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
"""No way that leads through a folder of this name leads over a symlink from there on."""

MOST_LEVELS = 100
"""Folders that lie deeper are not read: no person makes them, and a way costs a step for each level."""

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BELOW = _FLAGS | os.O_NOFOLLOW
_TRIES = 20
# PATH_MAX, less a file's name and what the path of its result adds.
_LONGEST_PATH = 4096 - 512

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_NO_RENAMEAT2 = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}


class Folders:
    """The folders below *top*, which may itself be reached by a symlink. The last *most* that were
    asked for stay open until `close`, as files come from the same few in rows; not for long, as
    they may be moved elsewhere meanwhile.

    *is_ours* says of a path below *top* that this folder is the daemon's own: what else has its name
    when it is to be made, or a closed folder of somebody else's, is moved aside, which *on_aside* is
    told with both paths.
    """

    def __init__(
        self,
        top: Path,
        most: int = 1,
        is_ours: Callable[[str], bool] = lambda _folder: False,
        on_aside: Callable[[str, str], None] = lambda _old, _new: None,
    ) -> None:
        self._top = top
        self._most = most
        self._is_ours = is_ours
        self._on_aside = on_aside
        self._open: dict[str, int] = {}

    def fd(self, folder: str, *, make: bool = False) -> int:
        """The open *folder*, a path below the top, until the next call; what of it is missing is made
        if it is to *make* it.

        Raises NotADirectoryError where a part of the way is a symlink or no folder, else OSError.
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
        """Open all folders anew from now on, as one of them may be gone."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    close = forget

    def _keep(self, folder: str, fd: int) -> int:
        while len(self._open) >= self._most:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[folder] = fd
        return fd

    def _enter(self, parent: int, path: str, name: str, make: bool) -> int:
        if name in ("", ".", ".."):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        for _ in range(_TRIES if make else 0):
            try:
                return os.open(name, _BELOW, dir_fd=parent)
            except FileNotFoundError:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=parent)
            except (NotADirectoryError, PermissionError) as error:
                is_closed = isinstance(error, PermissionError)
                if not self._is_ours(path) or (is_closed and _is_own(name, parent)):
                    raise
                # Whoever else can write here may be about to do it again.
                with suppress(FileNotFoundError):
                    self._on_aside(path, path[: -len(name)] + set_aside(name, parent))
        return os.open(name, _BELOW, dir_fd=parent)


def _is_own(name: str, folder: int) -> bool:
    return os.stat(name, dir_fd=folder, follow_symlinks=False).st_uid == os.geteuid()


def open_folder(top: Path, folder: str) -> int:
    """Open the *folder* below *top* step by step, so that no part of the way is a symlink. Raises
    OSError.
    """
    fd = os.open(top, _FLAGS)
    for part in folder.split("/") if folder else ():
        try:
            below = os.open(part, _BELOW, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """The open folder *path*, for as long as the body runs. Raises OSError.

    A path through a folder called .fluxdrop leads over no symlink from there on.
    """
    parts = path.parts
    start = parts.index(STATE) if STATE in parts else len(parts)
    fd = open_folder(Path(*parts[:start]), "/".join(parts[start:]))
    try:
        yield fd
    finally:
        os.close(fd)


class _Listing(NamedTuple):
    """A folder whose entries are being read, below the top, and its own descriptor."""

    folder: str
    fd: int
    entries: AbstractContextManager[Iterator[os.DirEntry[str]]]
    left: Iterator[os.DirEntry[str]]


def files_below(
    top: Path,
    below: str = "",
    skip: Callable[[str], bool] = lambda _name: False,
    on_error: Callable[[str, OSError], None] = lambda _folder, _error: None,
) -> Generator[str, None, None]:
    """The files in *top*, or in its subfolder *below*, as paths relative to *top*, without the files
    and folders whose names are to be *skipped*; no symlink is followed.

    *on_error* is told each folder that cannot be read, lies too deep or has too long a path, and why; one that
    vanishes is passed over. Of each folder on the way only the next entry is kept: the memory that it takes does
    not grow with their number.
    """
    listings: list[_Listing] = []
    longest = _LONGEST_PATH - len(os.fsencode(top))

    def enter(folder: str, open_it: Callable[[], int]) -> None:
        try:
            if folder.count("/") >= MOST_LEVELS:
                raise OSError(errno.ENAMETOOLONG, "it lies too deep", folder)
            if len(os.fsencode(folder)) > longest:
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
                enter(path, partial(os.open, entry.name, _BELOW, dir_fd=fd))
            else:
                yield path
    finally:
        while listings:
            leave()


def set_aside(name: str, folder: int) -> str:
    """Give what has the *name* in the open *folder* another one, and return that. Raises OSError."""
    for number in itertools.count(1):
        other = f"{name}-not-ours-{number}"
        with suppress(FileExistsError):
            rename_new(name, other, folder, folder)
            return other
    raise AssertionError("unreachable: the numbers do not end")


def rename_new(source: str, target: str, source_folder: int | None, folder: int) -> None:
    """Rename *source*, in the open *source_folder* or a path, to *target* in the open *folder*. Raises
    FileExistsError when something has that name, else OSError.
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
    """Whether anything, be it a symlink to nothing, has the *name* in the open *folder*."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
