"""What strangers put into the places of files and folders, and what lies outside and has to stay."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest


class Outside:
    """A folder that is none of fluxdrop's business."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "sub" / "20260101").mkdir(parents=True)
        self.file = folder / "precious"
        self.file.write_bytes(b"precious" * 1000)
        for name in ("cat.json", "sub/cat.png", "sub/20260101/x.webp", "00000.js"):
            (folder / name).write_bytes(b"kept")
        self._before = self._seen()

    def assert_same(self) -> None:
        """Nothing came, went or changed."""
        assert self._before == self._seen()

    def _seen(self) -> dict[str, tuple[int, int, int, bytes]]:
        found = {}
        for path in sorted(self.folder.rglob("*")):
            facts = path.lstat()
            data = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (facts.st_mode, facts.st_mtime_ns, facts.st_nlink, data)
        return found


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    """A folder beside the root."""
    return Outside(tmp_path / "outside")


def intrude(path: Path, way: str, outside: Outside) -> None:
    """Put something into the place of *path* by one rename, as a stranger would."""
    made = path.parent.parent / f"intruder {path.name}"
    match way:
        case "symlink to file":
            made.symlink_to(outside.file)
        case "symlink to folder":
            made.symlink_to(outside.folder)
        case "dangling":
            made.symlink_to(outside.folder / "new")
        case "fifo":
            os.mkfifo(made)
        case "file":
            made.write_bytes(b"")
        case _:
            made.mkdir()
    for kind in (shutil.rmtree, Path.unlink):
        with suppress(OSError):
            kind(path)
    made.rename(path)


FILE_WAYS = ["symlink to file", "symlink to folder", "dangling", "fifo", "folder"]
FOLDER_WAYS = ["symlink to folder", "symlink to file", "dangling", "fifo", "file"]
