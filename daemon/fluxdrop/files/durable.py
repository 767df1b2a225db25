"""Files that survive a power cut and never replace another: write, fsync, link or rename, fsync the
folder.

All that is written goes through here, and no link leads it elsewhere: what is new gets a name that
nobody can guess and that nothing had, what has a fixed name is opened without following one, and
names are given relative to the descriptor of an open folder (`fluxdrop.files.folders`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from fluxdrop import failpoints
from fluxdrop.files.folders import Folders, opened, set_aside
from fluxdrop.files.io_lock import release_io_lock

_MANY = 24
NOT_REGULAR = {errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EINVAL}
"""What `open_own` says of a file that is gone, or of what took its place and is none."""
_CHUNK = 1 << 20
_TREE_OPEN = 16
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.fluxdrop\.tmp")


class NotRegularError(OSError):
    """What was to be a file is a folder, a FIFO or another thing that is none."""


def write(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Make *path* hold *data*, whole or not at all; *path* is ours, so an older version of it is
    replaced.
    """
    try:
        with opened(path.parent) as folder:
            write_in(folder, path.name, data, sync=sync)
    except OSError as error:
        # Its name is relative to the folder, and random while it is in the making.
        error.filename = str(path)
        raise


def write_in(
    folder: int, name: str, data: bytes, *, sync: bool = True, target: int | None = None
) -> None:
    """`write` the file *name* in the open *folder*; or in the open folder *target* on the same
    filesystem, with what is not whole yet in *folder*. A folder of that name is moved aside.
    """
    target = folder if target is None else target
    with temporary(folder) as (file, unfinished):
        file.write(data)
        if sync:
            wait_for(file.fileno())
        failpoints.reach("file-written")
        try:
            os.replace(unfinished, name, src_dir_fd=folder, dst_dir_fd=target)
        except IsADirectoryError:
            set_aside(name, target)
            os.replace(unfinished, name, src_dir_fd=folder, dst_dir_fd=target)
    if sync:
        sync_open_folder(target)
    failpoints.reach("file-in-place")


@contextmanager
def temporary(folder: int) -> Iterator[tuple[FileIO, str]]:
    """A new file in the open *folder*, and the name that it has while the body runs, if the body does
    not give it another; `sweep` removes what a kill leaves of it."""
    name = f".{secrets.token_hex(8)}.fluxdrop.tmp"
    with _Whole(os.open(name, _NEW, 0o666, dir_fd=folder), "wb") as file:
        try:
            yield file, name
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)


def sweep(folder: int) -> None:
    """Remove the temporaries that a killed process of this user left in the open *folder*, in which
    no other is writing. Raises OSError."""
    for name in os.listdir(folder):
        if _TEMPORARY.fullmatch(name):
            with suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                    os.unlink(name, dir_fd=folder)


class _Whole(FileIO):
    """A file of which `write` writes all that it is given, or raises OSError."""

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        left = memoryview(data)
        while left:
            left = left[super().write(left) :]
        return len(data)


def put(path: Path, data: bytes | memoryview) -> None:
    """Write *data* to *path*, of which an OSError may leave a part; with half the system calls of a
    Python file, in each of which another thread may take the interpreter's lock.
    """
    fd = create(path)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
    finally:
        os.close(fd)


def create(path: Path) -> int:
    """Open the new file *path* to write it; another file or a link that has the name goes. Raises
    OSError."""
    try:
        return os.open(path, _NEW, 0o666)
    except FileExistsError:
        path.unlink()
    return os.open(path, _NEW, 0o666)


def open_own(path: Path, flags: int) -> int:
    """Open the file *path*, which is ours and keeps its name, and which is no link.

    Raises NotRegularError for what is no file, else OSError.
    """
    try:
        with opened(path.parent) as folder:
            return open_regular_fd(path.name, flags, folder)
    except OSError as error:
        # Its name is relative to the folder.
        error.filename = str(path)
        raise


def open_private(path: Path) -> int:
    """Open the file *path*, made where it is missing, as `open_own` does to read and write it, and let nobody else
    open it: whoever can open a file can lock it."""
    fd = open_own(path, os.O_RDWR | os.O_CREAT)
    os.fchmod(fd, 0o600)
    return fd


def renew_own(path: Path, data: bytes) -> None:
    """Make *path* hold *data*, as `write` does; what has the name is moved aside. Raises OSError."""
    with opened(path.parent) as folder:
        with suppress(FileNotFoundError):
            set_aside(path.name, folder)
        write_in(folder, path.name, data)


def read_own(path: Path, most: int = 1 << 26) -> bytes:
    """The contents of the file *path* as `open_own` opens it; raises OSError, also when they have more
    than *most* bytes."""
    with FileIO(open_own(path, os.O_RDONLY)) as file:
        return read_at_most(file, most)


def open_regular_fd(name: str | Path, flags: int, folder: int | None = None) -> int:
    """Open the regular file *name*, a path or in the open *folder*; no symlink is followed, and
    nothing is waited for. Raises as `open_own`."""
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, 0o666, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotRegularError(errno.EINVAL, "it is not a regular file", str(name))
    return fd


def read_at_most(file: FileIO, most: int) -> bytes:
    """What is left of *file*. Raises OSError when that is more than *most* bytes."""
    parts = []
    left = most + 1
    while left and (part := file.read(min(left, _CHUNK))):
        parts.append(part)
        left -= len(part)
    if not left:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(file.name))
    return b"".join(parts)


def sync_file(path: Path) -> None:
    """Wait until the contents of *path* are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        wait_for(fd)
    finally:
        os.close(fd)


def wait_for(fd: int) -> None:
    """Wait until the contents of the open file or folder *fd* are on the disk."""
    with release_io_lock():
        os.fsync(fd)


def sync_folder(path: Path) -> None:
    """Wait until the names in the folder *path* are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_open_folder(fd)
    finally:
        os.close(fd)


def sync_open_folder(folder: int) -> None:
    """Wait until the names in the open *folder* are on the disk."""
    try:
        wait_for(folder)
    except OSError as error:
        # Some network filesystems cannot sync a folder; their rename is as durable as they get.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def sync_all(
    files: Collection[Path],
    folders: Sequence[Path] = (),
    is_meant: Callable[[Path], bool] = lambda _path: True,
) -> bool:
    """Wait until the contents of those of *files* that are *meant*, and the names in *folders*, are
    on the disk; whether all of the filesystem is.

    Many files are waited for together, by one sync of the filesystem, which they and the folders
    then have to share.
    """
    with release_io_lock():
        if len(files) >= _MANY and _sync_filesystem(next(iter(files)).parent):
            return True
        for path in filter(is_meant, files):
            sync_file(path)
        for path in folders:
            sync_folder(path)
    return False


def sync_inputs(paths: Iterable[Path]) -> None:
    """Wait until the contents of those of *paths* that can be read, and are files, are on the disk: their owners may
    close them at any time."""
    for path in paths:
        try:
            fd = open_regular_fd(path, os.O_RDONLY)
        except OSError as error:
            if not isinstance(error, PermissionError) and error.errno not in NOT_REGULAR:
                raise
            continue
        try:
            wait_for(fd)
        finally:
            os.close(fd)


def _sync_filesystem(path: Path) -> bool:
    """syncfs(2) on the filesystem of *path*; False where the C library has no such call."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        return False
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(fd)
    return True


def remove_tree(folder: Path) -> None:
    """Remove *folder* and all in it, following no symlink; what is gone already is fine."""
    empty_tree(folder)
    with suppress(FileNotFoundError):
        folder.rmdir()


def empty_tree(folder: Path) -> None:
    """Remove all that is in *folder*, following no symlink; what is gone already is fine. Raises
    NotADirectoryError where *folder* itself is one.
    """
    tree = Folders(folder.parent, _TREE_OPEN)
    try:
        _empty(tree, folder.name)
    finally:
        tree.close()


def _empty(tree: Folders, top: str) -> None:
    pending = [top]
    found = []
    while pending:
        current = pending.pop()
        with suppress(FileNotFoundError):
            fd = tree.fd(current)
            for name in os.listdir(fd):  # noqa: PTH208 - a descriptor
                try:
                    os.unlink(name, dir_fd=fd)
                except FileNotFoundError:
                    pass
                except (IsADirectoryError, PermissionError):
                    # POSIX has the second for a folder.
                    if not stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                        raise
                    pending.append(f"{current}/{name}")
                    found.append((current, name))
    for current, name in reversed(found):
        with suppress(FileNotFoundError):
            os.rmdir(name, dir_fd=tree.fd(current))
