"""Choosing the NAME of a result: that of its source, with -2, -3, ... where it is taken."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from fluxdrop.files.layout import BY_LABEL, FAILED
from fluxdrop.publish.similar_names import folded

# A file's name may have 255 bytes; the longest addition to a NAME is "-99999.error.json".
_MAX_NAME_BYTES = 255 - len("-99999.error.json")
_MAX_SUFFIX_BYTES = 32
_NOT_PORTABLE = re.compile(r"[^A-Za-z0-9._-]")
_MAX_PORTABLE_STEM = 100
_TAKEN = (FAILED, BY_LABEL)
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
_WINDOWS_DEVICE = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)


def portable(source: str) -> str:
    """Return *source*, a path below inbox/, with names that every filesystem takes.

    They have ASCII letters, digits, dots, dashes and underscores only. None is long, begins or ends with a dot, or is
    one that Windows reserves for a device.
    """
    return "/".join(map(_portable_part, source.split("/")))


def _portable_part(name: str) -> str:
    path = PurePosixPath(name)
    stem = _NOT_PORTABLE.sub("_", path.stem)[:_MAX_PORTABLE_STEM].strip(".") or "_"
    if is_windows_device(stem):
        stem = f"_{stem}"
    return stem + _NOT_PORTABLE.sub("_", path.suffix)[:_MAX_SUFFIX_BYTES].rstrip(".")


def is_windows_device(name: str) -> bool:
    """Return whether Windows reserves *name*, whatever its suffix."""
    return _WINDOWS_DEVICE.fullmatch(name.partition(".")[0].rstrip(" ")) is not None


class NameChooser:
    """Chooses for each job a NAME that no file has and that no other job was given. One thread owns it.

    NAMEs that are equal on a share for Windows or macOS count as the same.
    """

    def __init__(self) -> None:
        self._given: set[str] = set()
        """The NAMEs that are reserved, folded."""
        self._next: dict[str, int] = {}

    def choose(
        self,
        source: str,
        is_taken: Callable[[str], bool],
        is_blocked: Callable[[str], bool],
        *,
        keeps_suffix: bool = False,
    ) -> str:
        """Return a free NAME for *source*, and reserve it until `release`.

        Args:
            source: A path below inbox/.
            is_taken: Returns whether a NAME is taken.
            is_blocked: Returns whether the path of a folder, below which NAMEs would lie, cannot be used.
            keeps_suffix: Whether the NAME ends with the suffix of *source*, or has none.
        """
        path = PurePosixPath(source)
        is_long = len(path.suffix.encode()) > _MAX_SUFFIX_BYTES
        suffix = path.suffix if keeps_suffix and not is_long else ""
        stem = path.name.removesuffix(suffix) if keeps_suffix else path.stem
        base = _folder(path, is_blocked) + _shortened(stem, _MAX_NAME_BYTES - len(suffix.encode()))
        key = folded(base + suffix)
        # Counting on from the last number makes the n-th equal name as cheap as the first.
        for number in itertools.count(self._next.get(key, 1)):
            name = f"{_numbered(base, number)}{suffix}"
            if folded(name) not in self._given and not is_taken(name):
                self._given.add(folded(name))
                self._next[key] = number
                return name
        raise AssertionError("unreachable: the numbers do not end")

    def release(self, name: str) -> None:
        """End the reservation of *name*: its files exist now, or never will."""
        self._given.discard(folded(name))
        if len(self._next) > 10_000:
            self._next.clear()


def _folder(path: PurePosixPath, is_blocked: Callable[[str], bool]) -> str:
    """Return the folder for *path*, with a slash at its end; a part that is blocked is numbered."""
    folder = ""
    for part in path.parts[:-1]:
        base = folder + _shortened(part, _MAX_NAME_BYTES)
        names: Iterator[str] = (_numbered(base, number) for number in itertools.count(1))
        # These are folders of outputs/ for other files, so their names are taken for a subfolder.
        free = (name for name in names if folded(name) not in _TAKEN and not is_blocked(name))
        folder = next(free) + "/"
    return folder


def _numbered(base: str, number: int) -> str:
    """Return *base*, with its *number* unless that is 1."""
    return f"{base}-{number}" if number > 1 else base


def _shortened(name: str, max_bytes: int) -> str:
    """Return *name* cut to *max_bytes* bytes of UTF-8."""
    return name.encode()[:max_bytes].decode("utf-8", "ignore") or "_"
