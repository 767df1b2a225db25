"""Files that survive a power cut and never replace another: write, fsync, link or rename, fsync the
folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import filecmp
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from fluxdrop import faults
from fluxdrop.passing import naming
from fluxdrop.turns import waiting

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK, errno.ENOSYS, errno.EACCES}
_MANY = 24


class NameTakenError(Exception):
    """Another file already has the name that was to be given."""


def write(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Make *path* hold *data*, whole or not at all; *path* is ours, so an older version of it is
    replaced.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with naming(path), temporary.open("wb") as file:
            file.write(data)
            if sync:
                file.flush()
                wait_for(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    faults.point("file-written")
    temporary.replace(path)
    if sync:
        sync_folder(path.parent)
    faults.point("file-in-place")


def put(path: Path, data: bytes | memoryview) -> None:
    """Write *data* to *path*, of which an OSError may leave a part; with half the system calls of a
    Python file, in each of which another thread may take the interpreter's lock.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Wait until the contents of *path* are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        wait_for(fd)
    finally:
        os.close(fd)


def wait_for(fd: int) -> None:
    """Wait until the contents of the open file or folder *fd* are on the disk."""
    with waiting():
        os.fsync(fd)


def sync_folder(path: Path) -> None:
    """Wait until the names in the folder *path* are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        wait_for(fd)
    except OSError as error:
        # Some network filesystems cannot sync a folder; their rename is as durable as they get.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


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
    with waiting():
        if len(files) >= _MANY and _sync_filesystem(next(iter(files)).parent):
            return True
        for path in filter(is_meant, files):
            sync_file(path)
        for path in folders:
            sync_folder(path)
    return False


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


def give_name(source: str | Path, target: str | Path) -> None:
    """Let *target* be a hard link to *source*, or a copy where linking fails.

    Doing it again is harmless. Raises NameTakenError when *target* is another file.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        if _is_link(Path(source), Path(target)):
            return
        # Linux looks whether the name is taken before it looks whether it could link.
        if _can_link(Path(source), Path(target).parent):
            raise NameTakenError(str(target)) from None
        _give_copy(Path(source), Path(target))
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _give_copy(Path(source), Path(target))


def take_name_back(source: Path, target: Path) -> None:
    """Remove *target* if, and only if, `give_name` can have made it of *source*: if it is a hard
    link to it, or where linking fails a copy of it. What a copy that was cut off left goes too.
    """
    is_copy = _is_copy(source, target) and not _can_link(source, target.parent)
    if is_copy or _is_link(source, target):
        target.unlink()
    if source.exists():
        _temporary(source, target.parent).unlink(missing_ok=True)


def _is_link(source: Path, target: Path) -> bool:
    try:
        return os.path.samestat(source.lstat(), target.lstat())
    except FileNotFoundError:
        return False


def _is_copy(source: Path, target: Path) -> bool:
    is_plain = all(path.is_file() and not path.is_symlink() for path in (source, target))
    return is_plain and os.access(source, os.R_OK) and filecmp.cmp(source, target, shallow=False)


def _can_link(source: Path, folder: Path) -> bool:
    probe = _temporary(source, folder)
    probe.unlink(missing_ok=True)
    try:
        os.link(source, probe, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    probe.unlink()
    return True


def _temporary(source: Path, folder: Path) -> Path:
    # A target's own name may be too long to be added to.
    return folder / f".{source.lstat().st_ino}.fluxdrop.tmp"


def _give_copy(source: Path, target: Path) -> None:
    if os.path.lexists(target):
        if _is_copy(source, target):
            return
        raise NameTakenError(str(target))
    temporary = _temporary(source, target.parent)
    with source.open("rb") as reader, temporary.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        wait_for(writer.fileno())
    faults.point("copy-written")
    # Only the daemon that holds the root's lock names files here, so nothing comes in between.
    temporary.rename(target)


def remove_tree(folder: Path) -> None:
    """Remove *folder* and all in it, following no symlink; what is gone already is fine."""
    empty_tree(folder)
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()


def empty_tree(folder: Path) -> None:
    """Remove all that is in *folder*, following no symlink; what is gone already is fine."""
    # Most hold files alone, and to walk takes longer than to remove them.
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        for name in os.listdir(folder):  # noqa: PTH208 - hot path
            os.unlink(f"{folder}/{name}")  # noqa: PTH108 - hot path
        return
    for current, folders, files in os.walk(folder, topdown=False):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{current}/{name}")  # noqa: PTH108 - hot path
        for name in folders:
            path = f"{current}/{name}"
            with contextlib.suppress(FileNotFoundError):
                if os.path.islink(path):  # noqa: PTH114 - hot path
                    os.unlink(path)  # noqa: PTH108 - hot path
                else:
                    os.rmdir(path)  # noqa: PTH106 - hot path
