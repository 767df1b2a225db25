"""Write files so that they survive a power cut and never replace another user's file.

A file is written, synced and renamed (or linked), and then its folder is synced. Results, and all
state that must survive, are written through this module, and no symlink can redirect them: a new
file gets a random, unused name; a file with a fixed name is opened without following links; and
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

_MIN_FILES_FOR_SYNCFS = 24
NOT_REGULAR = {errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EINVAL}
"""The errors of `open_own` when the file is gone or is not a regular file."""
_CHUNK_BYTES = 1 << 20
_MAX_OPEN_FOLDERS = 16
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.fluxdrop\.tmp")


Part = bytes | memoryview


class NotRegularError(OSError):
    """A path that should be a regular file is a folder, a FIFO or something else."""


def write(path: Path, data: bytes | Iterable[Part], *, sync: bool = True) -> None:
    """Write *data*, whole or in parts, to *path* atomically, replacing an older version.

    *path* must be a file of ours. With *sync*, contents and name are on the disk on return.
    """
    try:
        with opened(path.parent) as folder:
            write_in(folder, path.name, data, sync=sync)
    except OSError as error:
        # The error names a file relative to the folder, perhaps the temporary one.
        error.filename = str(path)
        raise


def write_in(
    folder: int,
    name: str,
    data: bytes | Iterable[Part],
    *,
    sync: bool = True,
    target: int | None = None,
) -> None:
    """Write a file atomically in an open folder, as `write` does. Move a folder of its name aside.

    Args:
        folder: The descriptor of the folder that holds the temporary file.
        name: The file's name.
        data: The contents, whole or in parts.
        sync: Whether to wait until contents and name are on the disk.
        target: The descriptor of the folder for the file, on the same filesystem; *folder* by default.
    """
    target = folder if target is None else target
    with temporary(folder) as (file, unfinished):
        for part in (data,) if isinstance(data, bytes) else data:
            file.write(part)
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
    """Yield a new file in the open *folder* and its name; remove it at the end, unless it was renamed.

    `sweep` removes the file if this process is killed first.
    """
    name = f".{secrets.token_hex(8)}.fluxdrop.tmp"
    with _CompleteWriteFile(os.open(name, _CREATE_FLAGS, 0o666, dir_fd=folder), "wb") as file:
        try:
            yield file, name
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)


def sweep(folder: int) -> None:
    """Remove the temporary files that a killed process of this user left in the open *folder*.

    No other process may be writing there.
    """
    for name in os.listdir(folder):
        if _TEMPORARY.fullmatch(name):
            with suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                    os.unlink(name, dir_fd=folder)


class _CompleteWriteFile(FileIO):
    """A file whose `write` writes all of its argument or raises OSError."""

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Write all of *data*; return its length."""
        left = memoryview(data)
        while left:
            left = left[super().write(left) :]
        return len(data)


def put(path: Path, data: bytes | memoryview) -> None:
    """Write *data* to the new file *path*, neither atomically nor synced.

    An OSError may leave a part of the file. This takes half the system calls of a Python file;
    in each of them another thread could take the interpreter's lock.
    """
    fd = create(path)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
    finally:
        os.close(fd)


def create(path: Path) -> int:
    """Create the file *path* and return a descriptor to write it; remove a file or link of that name."""
    try:
        return os.open(path, _CREATE_FLAGS, 0o666)
    except FileExistsError:
        path.unlink()
    return os.open(path, _CREATE_FLAGS, 0o666)


def open_own(path: Path, flags: int) -> int:
    """Open the regular file *path*, which is ours, without following links; return its descriptor.

    Raises:
        NotRegularError: *path* is not a regular file.
        OSError: It cannot be opened, or is a symlink.
    """
    try:
        with opened(path.parent) as folder:
            return open_regular_fd(path.name, flags, folder)
    except OSError as error:
        # The error names a file relative to the folder.
        error.filename = str(path)
        raise


def open_private(path: Path) -> int:
    """Open *path* as `open_own` does, to read and write; create it if it is missing; set mode 0600.

    The mode keeps other users from opening the file: whoever can open it can lock it.
    """
    fd = open_own(path, os.O_RDWR | os.O_CREAT)
    os.fchmod(fd, 0o600)
    return fd


def renew_own(path: Path, data: bytes) -> None:
    """Write *data* to *path* as `write` does, but move what has the name aside instead of replacing it."""
    with opened(path.parent) as folder:
        with suppress(FileNotFoundError):
            set_aside(path.name, folder)
        write_in(folder, path.name, data)


def read_own(path: Path, max_bytes: int = 1 << 26) -> bytes:
    """Return the contents of *path*, opened as `open_own` does.

    Raises:
        NotRegularError: *path* is not a regular file.
        OSError: It cannot be read, or has more than *max_bytes* bytes (EFBIG).
    """
    with FileIO(open_own(path, os.O_RDONLY)) as file:
        return read_at_most(file, max_bytes)


def open_regular_fd(name: str | Path, flags: int, folder: int | None = None) -> int:
    """Open a regular file and return its descriptor. Follow no symlink as its last part; never block.

    Args:
        name: A path, or a name in *folder*.
        flags: Flags of open(2).
        folder: The descriptor of an open folder.

    Raises:
        NotRegularError: It is not a regular file.
        OSError: It cannot be opened, or is a symlink.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, 0o666, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotRegularError(errno.EINVAL, "it is not a regular file", str(name))
    return fd


def read_at_most(file: FileIO, max_bytes: int) -> bytes:
    """Read *file* to its end. Raise OSError (EFBIG) if that is more than *max_bytes* bytes."""
    parts = []
    left = max_bytes + 1
    while left and (part := file.read(min(left, _CHUNK_BYTES))):
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
    needs_sync: Callable[[Path], bool] = lambda _path: True,
) -> bool:
    """Wait until the contents of *files* and the names in *folders* are on the disk.

    24 files or more are synced by one syncfs(2); then all files and folders must be on one filesystem.

    Args:
        files: The files.
        folders: The folders whose names are synced.
        needs_sync: Which of the files have to be synced where each is synced alone.

    Returns:
        Whether the whole filesystem was synced.
    """
    with release_io_lock():
        if len(files) >= _MIN_FILES_FOR_SYNCFS and _sync_filesystem(next(iter(files)).parent):
            return True
        for path in filter(needs_sync, files):
            sync_file(path)
        for path in folders:
            sync_folder(path)
    return False


def sync_inputs(paths: Iterable[Path]) -> None:
    """Wait until the contents of *paths* are on the disk; skip what is gone, leased, unreadable or not a regular file.

    The files belong to whoever dropped them, who may take away the right to read at any time.
    """
    for path in paths:
        try:
            fd = open_regular_fd(path, os.O_RDONLY)
        except OSError as error:
            is_its_own = isinstance(error, PermissionError | BlockingIOError)
            if not is_its_own and error.errno not in NOT_REGULAR:
                raise
            continue
        try:
            wait_for(fd)
        finally:
            os.close(fd)


def _sync_filesystem(path: Path) -> bool:
    """Call syncfs(2) for the filesystem of *path*; return False if the C library has no such call."""
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
    """Remove *folder* and all in it, following no symlink. Ignore what is already gone."""
    empty_tree(folder)
    with suppress(FileNotFoundError):
        folder.rmdir()


def empty_tree(folder: Path) -> None:
    """Remove all that is in *folder*, following no symlink. Ignore what is already gone.

    Raises:
        NotADirectoryError: *folder* itself is a symlink.
    """
    tree = Folders(folder.parent, _MAX_OPEN_FOLDERS)
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
                    # Linux raises IsADirectoryError for a folder, POSIX has PermissionError.
                    if not stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                        raise
                    pending.append(f"{current}/{name}")
                    found.append((current, name))
    for current, name in reversed(found):
        with suppress(FileNotFoundError):
            os.rmdir(name, dir_fd=tree.fd(current))
