"""What a pipeline, a LoRA or a model bundle consists of: its files and their digests.

The digest of all of these says whether a host has the same as the station.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.generate.sources import DEFAULTS, INDEX

Kind = Literal["pipeline", "file", "bundle"]
"""A diffusers folder, a single .safetensors file, or a model bundle."""

_WEIGHTS = ".safetensors"
_BUNDLE_FILES = ("model.toml", "model.onnx", "model.onnx.data")
# What a component's folder may have beside what is loaded: pickles, code, and weights for other libraries.
_NEVER_LOADED = frozenset(
    {".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".py", ".so", ".msgpack", ".h5", ".onnx"}
)
_MAX_FILES = 4096
_MAX_NAME_BYTES = 255
# A file that is changed twice within a clock tick of its filesystem may keep its times.
_SETTLED_SECONDS = 2.0


class ManifestFile(msgspec.Struct, frozen=True):
    """A file: its *path* below the folder that holds the content, its *size* in bytes and its SHA-256, in hex."""

    path: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a content consists of. All paths begin with its name, such as ``sdxl/unet/config.json``."""

    kind: Kind
    files: tuple[ManifestFile, ...]
    """Sorted by path."""

    @property
    def name(self) -> str:
        """The name of the folder or file."""
        return self.files[0].path.partition("/")[0]

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """The SHA-256, in hex, of what ``sha256sum`` prints for the files, after a line with the kind."""
        lines = [f"{self.kind}\n", *(f"{file.sha256}  {file.path}\n" for file in self.files)]
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


_Known = tuple[int, int, int, str]


class DigestMemory:
    """Remembers the digests of files by their sizes and times, in *file*. Any thread may use it.

    A file is read again when its size, or the time of a change of its contents or of its inode, is another one.

    Args:
        file: Where the digests are kept.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, _Known] = {}
        self._is_changed = False

    def sha256(self, path: Path) -> tuple[int, str]:
        """Return the size of *path* in bytes and the SHA-256 of its contents, in hex. Raise OSError."""
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if str(path) not in self._known:
                # Another process may have read it.
                self._known = self._kept() | self._known
            known = self._known.get(str(path))
            if known is not None and known[:3] == _times(status):
                return status.st_size, known[3]
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if max(status.st_mtime, status.st_ctime) < time.time() - _SETTLED_SECONDS:
            self.add(path, status, digest)
        return status.st_size, digest

    def add(self, path: Path, status: os.stat_result, digest: str) -> None:
        """Remember that *path* has this *digest* as long as its *status* is this one."""
        self._known[str(path)] = (*_times(status), digest)
        self._is_changed = True

    def save(self) -> None:
        """Write what was learned to the file, and forget files that are gone; what cannot be written is not kept."""
        if self._is_changed:
            known = self._kept() | self._known
            # Not Path.exists, which raises where a folder may not be read, or its server is away.
            known = {path: entry for path, entry in known.items() if os.path.exists(path)}  # noqa: PTH110
            with suppress(OSError):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                durable.write(self._file, msgspec.json.encode(known))
            self._is_changed = False

    def _kept(self) -> dict[str, _Known]:
        # Without it, everything is read once more.
        with suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(durable.read_own(self._file), type=dict[str, _Known])
        return {}


def _times(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def manifest_of(kind: Kind, source: Path, memory: DigestMemory) -> Manifest:
    """Return what *source* consists of: all that loading it may read.

    Args:
        kind: What it is.
        source: The folder or file.
        memory: The digests of files that did not change.

    Raises:
        FluxdropError: Kind ``pipeline``, or ``model`` for a bundle, when it cannot be read or is not of this kind.
    """
    with _readable(kind, source):
        files = tuple(
            ManifestFile(_path(source, below), *memory.sha256(source / below))
            for below in sorted(_loaded_files(kind, source))
        )
    memory.save()
    manifest = Manifest(kind=kind, files=files)
    check(manifest)
    return manifest


def sketch_of(kind: Kind, source: Path) -> Manifest:
    """Return what *source* consists of, without the digests, so that nothing is read. Raises as `manifest_of`."""
    with _readable(kind, source):
        return Manifest(
            kind=kind,
            files=tuple(
                ManifestFile(_path(source, below), (source / below).stat().st_size, "")
                for below in sorted(_loaded_files(kind, source))
            ),
        )


def has_sizes(source: Path, manifest: Manifest) -> bool:
    """Return whether *source* has a manifest's files, with their sizes."""
    with suppress(OSError):
        sizes = [(source.parent / file.path).stat().st_size for file in manifest.files]
        return sizes == [file.size for file in manifest.files]
    return False


def check(manifest: Manifest) -> None:
    """Check that a manifest, which may come from another machine, names only files that are loaded safely.

    No path leads out of the folder into which the files are to be written, and none is hidden.

    Raises:
        FluxdropError: Kind ``pipeline``, or ``model`` for a bundle, when one does, or is a pickle or code.
    """
    kind = manifest.kind
    paths = [file.path for file in manifest.files]
    if not paths or len(paths) > _MAX_FILES or len(set(paths)) < len(paths):
        raise _error(kind, f"a {kind} cannot consist of {len(paths)} files, or has one twice")
    if any(file.size < 0 for file in manifest.files):
        raise _error(kind, f"a file of the {kind} {manifest.name} has a negative size")
    for path in paths:
        parts = path.split("/")
        if (
            any(not part or part.startswith(".") or "\0" in part for part in parts)
            or max(len(os.fsencode(part)) for part in parts) > _MAX_NAME_BYTES
            or parts[0] != manifest.name
        ):
            raise _error(kind, f"the {kind} has a file with an impossible path: {path!r}")
        if not _may_be_loaded(kind, PurePosixPath(*parts)):
            raise _error(kind, f"the {kind} has {path}, which fluxdrop never loads from a cache")


def _may_be_loaded(kind: Kind, path: PurePosixPath) -> bool:
    """Return whether *path*, below the content's parent, is a file that a content of this kind may have."""
    if kind == "file":
        return path.suffix == _WEIGHTS and len(path.parts) == 1
    if kind == "bundle":
        return path.name in _BUNDLE_FILES and len(path.parts) == 2
    return path.suffix.lower() not in _NEVER_LOADED and len(path.parts) >= 2


def _loaded_files(kind: Kind, source: Path) -> Iterable[str]:
    """Return the paths below *source* of the files that loading may read; "" is *source* itself.

    Raises OSError, or ValueError or TypeError for an index that is none.
    """
    if kind == "file":
        return [""]
    if kind == "bundle":
        return [
            name for name in _BUNDLE_FILES if name != _BUNDLE_FILES[2] or (source / name).exists()
        ]
    index = json.loads((source / INDEX).read_bytes())
    components = [key for key in index if not key.startswith("_") and (source / key).is_dir()]
    files = [INDEX, *([DEFAULTS] if (source / DEFAULTS).exists() else [])]
    for component in components:
        for path in (source / component).rglob("*"):
            below = path.relative_to(source)
            if any(part.startswith(".") for part in below.parts):
                continue
            if path.is_symlink() and path.is_dir():
                raise ValueError(f"{below} is a link to a folder, which is not followed")
            if path.is_file() and _may_be_loaded(kind, PurePosixPath(source.name, below)):
                files.append(below.as_posix())
    return files


def _path(source: Path, below: str) -> str:
    return str(PurePosixPath(source.name, below))


@contextmanager
def _readable(kind: Kind, source: Path) -> Iterator[None]:
    """Convert what reading *source* raises into a FluxdropError."""
    try:
        yield
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        path = getattr(error, "filename", None) or source
        raise _error(kind, f"{path} cannot be read: {reason}") from error


def _error(kind: Kind, message: str) -> FluxdropError:
    return FluxdropError(message, kind="model" if kind == "bundle" else "pipeline")
