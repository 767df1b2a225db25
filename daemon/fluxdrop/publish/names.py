"""The NAME of a result: its source's, or with -2, -3, ... where that is taken."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from fluxdrop.layout import FAILED

# A file's name may have 255 bytes; the longest that is added to a NAME is "-99999.error.json".
_LONGEST = 255 - len("-99999.error.json")


class NameChooser:
    """Gives each job a NAME that no file has and that no other job was given."""

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._next: dict[str, int] = {}

    def choose(self, source: str, suffix: str, is_taken: Callable[[str], bool]) -> str:
        """A free name for *source* without its suffix; what stays behind the number is *suffix*.

        *source* is a path below inbox/. The caller calls `release` when the name's files are there.
        """
        base = _shortened(source, suffix)
        key = base + suffix
        for number in self._numbers(key):
            name = f"{base}-{number}{suffix}" if number > 1 else key
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

    def _numbers(self, key: str) -> Iterator[int]:
        # Counting on from the last number makes the n-th equal name cost as much as the first.
        number = self._next.get(key, 1)
        while True:
            yield number
            number += 1


def _shortened(source: str, suffix: str) -> str:
    path = PurePosixPath(source)
    parts = list(path.parts)
    # outputs/failed/ is where failures lie, so a subfolder of that name is a taken one.
    if len(parts) > 1 and parts[0] == FAILED:
        parts[0] = f"{FAILED}-2"
    stem = os.fsencode(path.stem)[: _LONGEST - len(suffix.encode())]
    parts[-1] = stem.decode("utf-8", "ignore") or "_"
    return "/".join(parts)
