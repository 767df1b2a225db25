"""Filesystems in files, on a btrfs that clones them in an instant; mounting them needs root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fluxdrop.files.layout import Root
from support.daemons import PATIENCE

FILESYSTEMS = ("ext4", "xfs", "btrfs")
IMAGE_BYTES = 512 << 20
_FICLONE = 0x40049409
_HOST_BYTES = 8 << 30


@contextlib.contextmanager
def host(folder: Path) -> Iterator[Path]:
    """A mounted btrfs in a file in *folder*. Raises OSError."""
    image = folder / "host.img"
    with image.open("xb") as file:
        file.truncate(_HOST_BYTES)
    make_filesystem("btrfs", image)
    with mounted(image, folder / "host", "discard") as place:
        yield place


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder for images, in memory where there is some."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else None) as folder:
        yield Path(folder)


def missing() -> str:
    """Why the power cannot be cut here, or nothing."""
    for command in ("mount", *(f"mkfs.{name}" for name in FILESYSTEMS)):
        if shutil.which(command) is None:
            return f"there is no {command}"
    with tempfile.TemporaryDirectory() as folder:
        for name in FILESYSTEMS:
            image = Path(folder, name)
            with image.open("xb") as file:
                file.truncate(IMAGE_BYTES)
            try:
                make_filesystem(name, image)
                with mounted(image, Path(folder, f"{name}-mounted")):
                    pass
            except OSError as error:
                return f"no {name} can be mounted: {error}"
    return ""


def make_filesystem(name: str, image: Path) -> None:
    """An empty filesystem of the kind *name* in the file *image*. Raises OSError."""
    _do(f"mkfs.{name}", "-q", image)


@contextlib.contextmanager
def mounted(image: Path, folder: Path, *options: str) -> Iterator[Path]:
    """The filesystem in *image* at *folder*, as long as the body runs. Raises OSError."""
    folder.mkdir(exist_ok=True)
    # The loop device goes with the mount.
    _do("mount", "-o", ",".join(("loop", *options)), image, folder)
    try:
        yield folder
    finally:
        _unmount(folder)


def _unmount(folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            return _do("umount", folder)
        except OSError:
            # The children of a daemon that was killed take a moment to end.
            time.sleep(0.1)
    # Nothing of it may stay, but what was meant to follow cannot.
    _do("umount", "--lazy", folder)
    raise OSError(f"{folder} was still in use")


def clone(image: Path, target: Path) -> None:
    """As `cp --reflink=always`: the whole file of one instant."""
    target.unlink(missing_ok=True)
    with image.open("rb") as source, target.open("xb") as file:
        fcntl.ioctl(file, _FICLONE, source.fileno())


def _do(*command: object) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


def fill(root: Root) -> Path:
    """Leave no room in *root*; the file that takes it."""
    ballast = root.path / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return ballast
