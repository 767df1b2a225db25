"""A host's cache of pipelines, LoRAs and model bundles that came from a station.

::

    CACHE/contents/DIGEST/NAME     verified contents
    CACHE/incoming/DIGEST/NAME     what has come so far of others
    CACHE/locks/DIGEST             held while a content is used (shared) or written or removed (exclusive)
    CACHE/digests.json             the `DigestMemory`

Several processes of one user may share a cache.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from fluxdrop.cluster.pipeline_digest import (
    DigestMemory,
    Manifest,
    ManifestFile,
    check,
    has_sizes,
    manifest_of,
)
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.transient import FULL
from fluxdrop.logs import get_logger

log = get_logger("fluxdrop.cache")

PIECE_BYTES = 16 * 1024**2
"""How much of a file is asked for at once: larger ones would fill a small object store, and were not faster."""

Pieces = Callable[[str, int], Iterator[bytes | memoryview]]
"""Yields the contents of a manifest's file, which is named by its path, from an offset in bytes on."""

_LOCK_SECONDS = 0.2
_SPARE_BYTES = 64 * 1024**2


class HostUnfit(FluxdropError):
    """This host cannot be used for what it was asked; others may. Its kind is ``host``."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint, kind="host")


class _Kept(NamedTuple):
    """A content or a part of one on the disk."""

    folder: Path
    used: float
    size: int


class PipelineCache:
    """Keeps contents up to a size; the least recently used ones are removed first.

    Args:
        folder: The cache; it is created, and only this user may write there.
        max_bytes: The most bytes of all contents.
        wait_hook: Called between two pieces and while another process fills the cache; what it raises ends the
            wait.

    Raises:
        HostUnfit: The folder cannot be used.
    """

    def __init__(
        self, folder: Path, max_bytes: int, wait_hook: Callable[[], None] = lambda: None
    ) -> None:
        self.folder = self._folder = folder
        self._max_bytes = max_bytes
        self._wait_hook = wait_hook
        self._contents, self._incoming = folder / "contents", folder / "incoming"
        self._locks = folder / "locks"
        with _unfit(folder):
            for place in (folder, self._contents, self._incoming, self._locks):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise HostUnfit(
                f"Others may write to the cache {folder}",
                hint=f"Run: chown {os.geteuid()} {folder} && chmod go-w {folder}",
            )
        self.memory = DigestMemory(folder / "digests.json")
        """The digests of files of the cache, and of any others on this host."""

    def find(self, manifest: Manifest) -> Path | None:
        """Return the path of a content that is in the cache at this moment; None if it is not."""
        path = self._contents / manifest.digest / manifest.name
        return path if self._is_whole(manifest) else None

    @contextmanager
    def holding(self, manifest: Manifest, pieces: Pieces) -> Iterator[Path]:
        """Yield the path of a content, which nobody removes before the end of the ``with`` statement.

        What the cache does not have, or has with other contents, comes from *pieces*. What had come before an
        interruption is used.

        Raises:
            HostUnfit: It does not fit into the cache or onto the disk, or does not come as the manifest says.
            Exception: What *pieces* or the wait hook raises.
        """
        check(manifest)
        digest = manifest.digest
        with ExitStack() as held:
            with _unfit(self._folder):
                lock = held.enter_context((self._locks / digest).open("w"))
                os.utime(lock.fileno())
                if not self._has(manifest, lock):
                    self._lock(lock, fcntl.LOCK_EX)
                    if not self._is_whole(manifest):
                        self._fill(manifest, pieces)
                    if not self._has(manifest, lock):
                        raise HostUnfit(f"{manifest.name} was changed in the cache {self._folder}")
            yield self._contents / digest / manifest.name

    def obstacle(self, manifest: Manifest) -> str:
        """Return why a content, whose digests need not be known, does not fit here; empty if it does."""
        places = self._contents.glob(f"*/{glob.escape(manifest.name)}")
        if any(has_sizes(path, manifest) for path in places):
            return ""
        try:
            self._check_room(manifest, sum(one.size for one in self._kept()))
        except HostUnfit as error:
            return str(error)
        return ""

    def _check_room(self, manifest: Manifest, removable: int) -> None:
        """Raise HostUnfit if *manifest* does not fit, even after *removable* bytes were removed."""
        if manifest.size > self._max_bytes:
            raise HostUnfit(
                f"{manifest.name} has {_gigabytes(manifest.size)}, and the cache may have"
                f" {_gigabytes(self._max_bytes)}",
                hint="Raise cache_max_bytes in this host's host.toml.",
            )
        free = shutil.disk_usage(self._folder).free + removable
        if free < manifest.size:
            raise HostUnfit(
                f"{manifest.name} needs {_gigabytes(manifest.size)}, and the disk of {self._folder} has"
                f" {_gigabytes(free)} free",
                hint="Make room there, or name another cache folder in host.toml.",
            )

    def _has(self, manifest: Manifest, lock: IO[str]) -> bool:
        """Return whether the cache has the content, and hold it then."""
        self._lock(lock, fcntl.LOCK_SH)
        return self._is_whole(manifest)

    def _is_whole(self, manifest: Manifest) -> bool:
        """Return whether the cache has the content; files that changed since it was written are read again."""
        path = self._contents / manifest.digest / manifest.name
        if not path.exists():
            return False
        with suppress(FluxdropError):
            if manifest_of(manifest.kind, path, self.memory) == manifest:
                return True
        log.error("a pipeline in the cache was changed, and is not used", path=str(path))
        return False

    def _fill(self, manifest: Manifest, pieces: Pieces) -> None:
        """Bring the content into the cache. The caller holds its lock, exclusively."""
        digest = manifest.digest
        final, incoming = self._contents / digest, self._incoming / digest
        shutil.rmtree(final, ignore_errors=True)
        self._make_room(manifest)
        started, came = time.monotonic(), 0
        for file in manifest.files:
            path = incoming / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            came += self._bring(path, file, pieces)
            self.memory.add(final / file.path, path.stat(), file.sha256)
        for folder, _folders, _files in os.walk(incoming):
            durable.sync_folder(Path(folder))
        incoming.rename(final)
        durable.sync_folder(self._contents)
        seconds = time.monotonic() - started
        log.info(
            "a pipeline came from the station",
            name=manifest.name,
            digest=digest[:12],
            megabytes=came >> 20,
            megabytes_per_second=round(came / 2**20 / max(seconds, 1e-3), 1),
        )

    def _bring(self, path: Path, file: ManifestFile, pieces: Pieces) -> int:
        """Write *file* to *path*, after what is there already; return the bytes that came.

        Raises HostUnfit, after removing it, when its digest is not the manifest's.
        """
        digest = hashlib.sha256()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        # A piece is hashed while it is written: both let other threads run.
        with os.fdopen(fd, "r+b") as out, ThreadPoolExecutor(1) as hasher:
            if os.fstat(fd).st_size > file.size:
                out.truncate(0)
            while block := out.read(1 << 20):
                digest.update(block)
            begun = size = out.tell()
            for piece in pieces(file.path, size) if size < file.size else ():
                self._wait_hook()
                if size + len(piece) > file.size:
                    break
                hashed = hasher.submit(digest.update, piece)
                out.write(piece)
                hashed.result()
                size += len(piece)
            out.flush()
            os.fsync(fd)
        if size != file.size or digest.hexdigest() != file.sha256:
            path.unlink()
            raise HostUnfit(
                f"{file.path} did not come as it is on the station",
                hint="If it happens again, look at the memory and the disks of both.",
            )
        return size - begun

    def _make_room(self, manifest: Manifest) -> None:
        """Remove what was not used for longest until *manifest* fits; raise HostUnfit if it never does."""
        own = self._incoming / manifest.digest
        here = _size(own)
        missing = manifest.size - here
        self._check_room(manifest, sum(one.size for one in self._kept()))
        others = sorted(
            (one for one in self._kept() if one.folder != own), key=lambda one: one.used
        )
        used = sum(one.size for one in others) + manifest.size
        for one in others:
            is_full = shutil.disk_usage(self._folder).free < missing + _SPARE_BYTES
            if (used > self._max_bytes or is_full) and self._remove(one.folder):
                used -= one.size
        if used > self._max_bytes:
            raise HostUnfit(
                f"{manifest.name} has {_gigabytes(manifest.size)}, and what is in use fills the cache",
                hint="Raise cache_max_bytes in this host's host.toml.",
            )
        self._check_room(manifest, here)

    def _kept(self) -> list[_Kept]:
        """Return all contents, and the parts of those that did not come whole."""
        found = []
        for place in (self._contents, self._incoming):
            for folder in place.iterdir():
                lock = self._locks / folder.name
                used = lock.stat().st_mtime if lock.exists() else 0.0
                found.append(_Kept(folder, used, _size(folder)))
        return found

    def _remove(self, folder: Path) -> bool:
        """Remove *folder*, unless somebody uses it; return whether it was removed."""
        with (self._locks / folder.name).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            shutil.rmtree(folder)
        log.info("a pipeline was removed from the cache", digest=folder.name[:12])
        return True

    def _lock(self, lock: IO[str], kind: int) -> None:
        """Lock *lock*, shared or exclusively; call the wait hook meanwhile."""
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
                return
            self._wait_hook()
            time.sleep(_LOCK_SECONDS)


@contextmanager
def _unfit(folder: Path) -> Iterator[None]:
    """Convert an OSError in the cache *folder* into HostUnfit."""
    try:
        yield
    except OSError as error:
        what = "is full" if error.errno in FULL else f"cannot be used: {error.strerror}"
        raise HostUnfit(
            f"The cache {folder} {what}",
            hint="Make room there." if error.errno == errno.ENOSPC else "",
        ) from error


def _size(folder: Path) -> int:
    """Return the bytes of all files in *folder*; 0 if there is none. Another process may be removing it."""
    size = 0
    for current, _folders, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += Path(current, name).lstat().st_size
    return size


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
