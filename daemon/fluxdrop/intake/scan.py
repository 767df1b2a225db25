"""What lies in the inbox: the truth that events only hint at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fluxdrop.intake.names import is_ignored


def scan(inbox: Path, below: str = "") -> Iterator[str]:
    """The files in *inbox*, or in its subfolder *below*, as paths relative to *inbox*; no symlink is followed.

    A subfolder that vanishes or cannot be read is passed over, as the next scan sees it again.
    """
    folders = [below]
    while folders:
        folder = folders.pop()
        try:
            fd = open_folder(inbox, folder)
        except OSError:
            if not folder:
                raise
            continue
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
        except OSError:
            if not folder:
                raise
        finally:
            os.close(fd)


def open_folder(inbox: Path, folder: str) -> int:
    """Open the *folder* below *inbox* step by step, so that no part of the way is a symlink. Raises OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(inbox, flags)
    for part in PurePosixPath(folder).parts:
        try:
            below = os.open(part, flags | os.O_NOFOLLOW, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd
