"""Which files in .fluxdrop/requests/ are new, and which are none that belong there."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from fluxdrop.requests.messages import id_of

_MOST_AT_ONCE = 1024
_MOST_ODD_AT_ONCE = 64
_MOST_UNFINISHED = 4096
_UNFINISHED_SECONDS = 3600.0


class Found(NamedTuple):
    """What a look found: the ids of *new* requests, each with the user that its file belongs to, the names of
    what is *odd*, and how many more new ones there are."""

    new: list[tuple[str, int]]
    odd: list[str]
    more: int


class RequestFiles:
    """Looks into the folder *path*. Owned by the main loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished: dict[str, float] = {}
        """When each dot file was seen first."""

    def look(self, is_known: Callable[[str], bool], is_stuck: Callable[[str], bool]) -> Found:
        """Find what is neither *known* by its id nor *stuck* by its name: of each user's the oldest, and as many
        of each user's as of the others'. Raises OSError."""
        new: defaultdict[int, list[str]] = defaultdict(list)
        odd: list[str] = []
        before, self._unfinished = self._unfinished, {}
        # The names are bytes: not all of them are UTF-8.
        with os.scandir(self._path) as entries:
            for entry in entries:
                request_id = id_of(entry.name)
                if is_stuck(entry.name) or (request_id is not None and is_known(request_id)):
                    continue
                try:
                    if request_id is not None:
                        new[entry.stat(follow_symlinks=False).st_uid].append(request_id)
                    elif not self._may_become_one(entry, before) and len(odd) < _MOST_ODD_AT_ONCE:
                        odd.append(entry.name)
                except FileNotFoundError:
                    continue
        rounds = zip_longest(*([(name, user) for name in sorted(new[user])] for user in new))
        fair = [found for each in rounds for found in each if found is not None]
        return Found(fair[:_MOST_AT_ONCE], odd, len(fair[_MOST_AT_ONCE:]))

    def _may_become_one(self, entry: os.DirEntry[str], before: dict[str, float]) -> bool:
        """Whether *entry* may still become a request; what a command that was killed left does not, whatever time
        it claims to be of. Raises FileNotFoundError."""
        if not entry.name.startswith("."):
            return False
        if len(self._unfinished) >= _MOST_UNFINISHED:
            # Its turn comes when the others are gone.
            return True
        now = time.monotonic()
        seen = before.get(entry.name)
        if seen is None:
            age = time.time() - entry.stat(follow_symlinks=False).st_mtime
            seen = now - max(age, 0.0)
        self._unfinished[entry.name] = seen
        return now - seen < _UNFINISHED_SECONDS
