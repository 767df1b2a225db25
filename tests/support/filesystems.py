"""Filesystems of other systems, mounted for a test."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MEGABYTE = 1 << 20


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[None]:
    """A filesystem of *size*, as 32m, on *folder*; the test is skipped where nothing can be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "fluxdrop-test", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a filesystem cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def ntfs(folder: Path, options: str = "windows_names") -> Iterator[Path]:
    """A filesystem as Windows has it, mounted below *folder* with the *options* of ntfs-3g(8): as it is, all on it
    may be written by everybody, and it refuses the names that Windows does.
    """
    image, mounted = folder / "ntfs.img", folder / "ntfs"
    if not (shutil.which("mkntfs") and shutil.which("ntfs-3g")):
        pytest.skip("ntfs-3g is not installed")
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(64 * MEGABYTE)
        subprocess.run(["mkntfs", "-F", "-Q", image], check=True, capture_output=True)
    mounted.mkdir(exist_ok=True)
    mount = ["ntfs-3g", "-o", options, str(image), str(mounted)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a filesystem cannot be mounted here: {done.stderr.strip()}")
    try:
        yield mounted
    finally:
        # Not --lazy: it is to be on its image when it is mounted again.
        subprocess.run(["umount", str(mounted)], check=True)
