"""The NAME of a result: its source's, or with -2, -3, ... where that is taken."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from fluxdrop.files.layout import FAILED

# A file's name may have 255 bytes; the longest that is added to a NAME is "-99999.error.json".
_LONGEST = 255 - len("-99999.error.json")
_LONGEST_SUFFIX = 32
_ODD = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST_PLAIN = 100
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
_DEVICE = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)


def plain(source: str) -> str:
    """*source*, a path below inbox/, with names that every filesystem takes: of ASCII letters, digits, dots,
    dashes and underscores, none long, none beginning or ending with a dot, none of those that Windows keeps for
    devices."""
    return "/".join(map(_plain_part, source.split("/")))


def _plain_part(name: str) -> str:
    path = PurePosixPath(name)
    stem = _ODD.sub("_", path.stem)[:_LONGEST_PLAIN].strip(".") or "_"
    if _DEVICE.fullmatch(stem.partition(".")[0]):
        stem = f"_{stem}"
    return stem + _ODD.sub("_", path.suffix)[:_LONGEST_SUFFIX].rstrip(".")


class NameChooser:
    """Gives each job a NAME that no file has and that no other job was given."""

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._next: dict[str, int] = {}

    def choose(
        self,
        source: str,
        is_taken: Callable[[str], bool],
        is_blocked: Callable[[str], bool],
        *,
        keeps_suffix: bool = False,
    ) -> str:
        """A free name for *source*, a path below inbox/, without its suffix or with it.

        *is_blocked* says of a folder's name that something else than a folder has it. The caller
        calls `release` when the name's files are there.
        """
        path = PurePosixPath(source)
        is_long = len(path.suffix.encode()) > _LONGEST_SUFFIX
        suffix = path.suffix if keeps_suffix and not is_long else ""
        stem = path.name.removesuffix(suffix) if keeps_suffix else path.stem
        base = _folder(path, is_blocked) + _shortened(stem, _LONGEST - len(suffix.encode()))
        key = base + suffix
        # Counting on from the last number makes the n-th equal name cost as much as the first.
        for number in itertools.count(self._next.get(key, 1)):
            name = f"{_numbered(base, number)}{suffix}"
            if name not in self._given and not is_taken(name):
                self._given.add(name)
                self._next[key] = number
                return name
        raise AssertionError("unreachable: the numbers do not end")

    def release(self, name: str) -> None:
        """The files of *name* are there, or will never be."""
        self._given.discard(name)
        if len(self._next) > 10_000:
            self._next.clear()


def _folder(path: PurePosixPath, is_blocked: Callable[[str], bool]) -> str:
    """The folder for *path*, with a slash at its end; a part whose name is blocked is numbered."""
    folder = ""
    for part in path.parts[:-1]:
        base = folder + _shortened(part, _LONGEST)
        # outputs/failed/ is where failures lie, so a subfolder of that name is a taken one.
        names: Iterator[str] = (_numbered(base, number) for number in itertools.count(1))
        folder = next(name for name in names if name != FAILED and not is_blocked(name)) + "/"
    return folder


def _numbered(base: str, number: int) -> str:
    return f"{base}-{number}" if number > 1 else base


def _shortened(name: str, most: int) -> str:
    return name.encode()[:most].decode("utf-8", "ignore") or "_"
