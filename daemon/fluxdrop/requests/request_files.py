"""Finding the new requests in .fluxdrop/requests/, and files that do not belong there."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from fluxdrop.requests.messages import id_of

_MAX_AT_ONCE = 1024
_MAX_UNEXPECTED_AT_ONCE = 64
_MAX_UNFINISHED = 4096
_UNFINISHED_SECONDS = 3600.0


class Found(NamedTuple):
    """What was found in the folder."""

    new: list[tuple[str, int]]
    """The ids of new requests, each with the user id that owns its file."""
    unexpected: list[str]
    """The names of files that are not requests and will never be."""
    more: int
    """How many more new requests there are."""


class RequestFiles:
    """The files in the folder *path*. Owned by the main loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished: dict[str, float] = {}
        """When each dot file was first seen, by the monotonic clock."""

    def look(self, is_known: Callable[[str], bool], is_stuck: Callable[[str], bool]) -> Found:
        """Find new requests, the oldest of each user first and as many of each user as of the others.

        Args:
            is_known: Returns whether a request, by its id, is known already.
            is_stuck: Returns whether a file, by its name, is to be ignored.

        Raises:
            OSError: The folder cannot be read.
        """
        new: defaultdict[int, list[str]] = defaultdict(list)
        unexpected: list[str] = []
        before, self._unfinished = self._unfinished, {}
        # Names that are not UTF-8 come with surrogates.
        with os.scandir(self._path) as entries:
            for entry in entries:
                request_id = id_of(entry.name)
                if is_stuck(entry.name) or (request_id is not None and is_known(request_id)):
                    continue
                try:
                    if request_id is not None:
                        new[entry.stat(follow_symlinks=False).st_uid].append(request_id)
                    elif (
                        not self._may_become_one(entry, before)
                        and len(unexpected) < _MAX_UNEXPECTED_AT_ONCE
                    ):
                        unexpected.append(entry.name)
                except FileNotFoundError:
                    continue
        rounds = zip_longest(*([(name, user) for name in sorted(new[user])] for user in new))
        fair = [found for each in rounds for found in each if found is not None]
        return Found(fair[:_MAX_AT_ONCE], unexpected, len(fair[_MAX_AT_ONCE:]))

    def _may_become_one(self, entry: os.DirEntry[str], before: dict[str, float]) -> bool:
        """Return whether the file *entry* may still become a request. Raises FileNotFoundError.

        What a killed command left does not become one. Such a file is recognised by how long it has been seen here,
        as its own time may be false.
        """
        if not entry.name.startswith("."):
            return False
        if len(self._unfinished) >= _MAX_UNFINISHED:
            # It is looked at when the others are gone.
            return True
        now = time.monotonic()
        seen = before.get(entry.name)
        if seen is None:
            age = time.time() - entry.stat(follow_symlinks=False).st_mtime
            seen = now - max(age, 0.0)
        self._unfinished[entry.name] = seen
        return now - seen < _UNFINISHED_SECONDS
