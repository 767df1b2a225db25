"""Folders of jobs that are done, emptied and used again for new ones.

Renaming one costs a fraction of what making and removing one does, most of all on filesystems that
are slow to reuse what was just removed.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from pathlib import Path

from fluxdrop import durable, faults

_MOST = 256


class Spares:
    """Empty folders below *folder*; what an earlier run left there is removed.

    One thread discards and settles; `make` may be called from any.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._free: deque[Path] = deque()
        self._emptied: list[Path] = []
        """What a power cut could fill again with the files of the job before."""
        durable.remove_tree(folder)
        folder.mkdir()

    def make(self, folder: Path) -> None:
        """Make the new *folder*. Raises OSError."""
        with suppress(IndexError, FileNotFoundError):
            self._free.pop().rename(folder)
            return
        folder.mkdir()

    def discard(self, folder: Path) -> None:
        """Take *folder* away whole by one rename, and remove what is in it. Raises OSError."""
        spare = self._folder / folder.name
        folder.rename(spare)
        faults.point("job-discarded")
        durable.empty_tree(spare)
        if len(self._emptied) < _MOST:
            self._emptied.append(spare)
        else:
            spare.rmdir()
        faults.point("job-emptied")

    def settle(self) -> None:
        """All that was discarded is so on the disk too."""
        self._free.extend(self._emptied)
        self._emptied.clear()
