"""What lies in the inbox: the truth that events only hint at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fluxdrop.intake.names import is_ignored


def scan(
    inbox: Path,
    below: str = "",
    on_error: Callable[[str, OSError], None] = lambda _folder, _error: None,
) -> Iterator[str]:
    """The files in *inbox*, or in its subfolder *below*, as paths relative to *inbox*; no symlink
    is followed.

    *on_error* is told each folder that cannot be read, and why; one that vanishes is passed over.
    """
    folders = [below]
    while folders:
        folder = folders.pop()
        try:
            yield from _files(inbox, folder, folders)
        except OSError as error:
            if not folder or not isinstance(error, FileNotFoundError):
                on_error(folder, error)


def _files(inbox: Path, folder: str, folders: list[str]) -> Iterator[str]:
    """The files in *folder*; its subfolders are added to *folders*."""
    fd = open_folder(inbox, folder)
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                if is_ignored(entry.name):
                    continue
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                else:
                    yield path
    finally:
        os.close(fd)


class Folders:
    """The folders below *inbox*. The last one stays open until `close`, as files come from the same one
    in rows; not for long, as it may be moved elsewhere meanwhile.
    """

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        self._open: tuple[str, int] | None = None

    def fd(self, folder: str) -> int:
        """The open *folder*, until the next call. Raises what `open_folder` raises."""
        if self._open is None or self._open[0] != folder:
            self.close()
            self._open = folder, open_folder(self._inbox, folder)
        return self._open[1]

    def close(self) -> None:
        """Let go of what is open."""
        if self._open is not None:
            os.close(self._open[1])
            self._open = None


def open_folder(inbox: Path, folder: str) -> int:
    """Open the *folder* below *inbox* step by step, so that no part of the way is a symlink. Raises
    OSError.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(inbox, flags)
    for part in folder.split("/") if folder else ():
        try:
            below = os.open(part, flags | os.O_NOFOLLOW, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd
