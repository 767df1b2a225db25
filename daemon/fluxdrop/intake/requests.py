"""Requests: jobs that commands made whole in .fluxdrop/requests/, claimed by one rename."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from fluxdrop import faults
from fluxdrop.intake.claim import read_claim
from fluxdrop.intake.names import kind_of
from fluxdrop.layout import Root


class Requests:
    """Feeds the folders of requests to *accept*, as many as *room* allows, in their order.

    *leave* is told what cannot be read or claimed, and why.
    """

    def __init__(
        self,
        root: Root,
        accept: Callable[[Path], None],
        room: Callable[[bool], bool],
        leave: Callable[[str, str], None],
    ) -> None:
        self._root = root
        self._accept = accept
        self._room = room
        self._leave = leave
        # As in the inbox, prompts and pictures queue apart.
        self._waiting: dict[bool, deque[Path]] = {True: deque(), False: deque()}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def find(self) -> None:
        """Look for new ones."""
        try:
            found = sorted(self._root.requests.iterdir())
        except OSError as error:
            self._leave(str(self._root.requests), f"it cannot be read: {error.strerror}")
            return
        known = {path for waiting in self._waiting.values() for path in waiting}
        for path in found:
            if path in known or path.name.startswith(".") or path.is_symlink() or not path.is_dir():
                continue
            claim = read_claim(path)
            is_prompt = claim is not None and kind_of(claim.source.name) == "prompt"
            self._waiting[is_prompt].append(path)

    def claim(self) -> None:
        """Claim what there is room for."""
        for is_prompt, waiting in self._waiting.items():
            while waiting and self._room(is_prompt):
                request = waiting.popleft()
                folder = self._root.work / request.name
                try:
                    request.rename(folder)
                except OSError as error:
                    self._leave(str(request), f"it cannot be claimed: {error.strerror}")
                else:
                    faults.point("request-renamed")
                    self._accept(folder)
