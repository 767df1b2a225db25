"""When is a dropped file whole? One `Candidate` watches one file until the answer is yes, or never."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from fluxdrop.intake.names import kind_of
from fluxdrop.intake.png import SIGNATURE, PngScanner


class Hint(Enum):
    """What an event said of a file."""

    CHANGED = 0
    CLOSED = 1
    """Closed after writing."""
    MOVED_IN = 2
    """Renamed to where it is, so written elsewhere."""


class Ready(NamedTuple):
    """The file can be claimed; *fault* says why it has to fail, if it does."""

    fault: str = ""


class Wait(NamedTuple):
    """The file is to be looked at again after *seconds*, or at the next event."""

    seconds: float


class Gone(NamedTuple):
    """There is no such file any more, or it is not a regular one."""

    irregular: bool = False


Verdict = Ready | Wait | Gone


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds. *trust_clock*: the filesystem's clock is this machine's."""

    settle: float
    incomplete: float
    trust_clock: bool = True

    @property
    def after_close(self) -> float:
        """How long a closed file must stand still: some programs reopen a file to append to it."""
        return self.settle / 2


@dataclass(slots=True)
class Candidate:
    """One file in the inbox, by its name in the folder that holds it."""

    name: str
    hint: Hint = Hint.CHANGED
    _signature: tuple[int, ...] = ()
    _since: float = 0.0
    _scanner: PngScanner | None = None

    def notice(self, hint: Hint) -> None:
        """Take in an event; it counts as a change, whatever the file's times say."""
        self.hint = hint
        self._signature = ()

    def judge(self, folder_fd: int, patience: Patience, monotonic: float, clock: float) -> Verdict:
        """Look at the file, below the open folder *folder_fd*, at the times *monotonic* and *clock* (seconds)."""
        try:
            fd = os.open(
                self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder_fd
            )
        except FileNotFoundError:
            return Gone()
        except OSError:
            return self._unreadable(folder_fd)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return Gone(irregular=True)
            self._note_change(status, patience, monotonic, clock)
            return self._judge_contents(fd, status.st_size, patience, monotonic - self._since)
        finally:
            os.close(fd)

    def _unreadable(self, folder_fd: int) -> Verdict:
        try:
            status = os.stat(self.name, dir_fd=folder_fd, follow_symlinks=False)
        except OSError:
            return Gone()
        if not stat.S_ISREG(status.st_mode):
            return Gone(irregular=True)
        return Ready(fault="the daemon has no permission to read it")

    def _note_change(
        self, status: os.stat_result, patience: Patience, monotonic: float, clock: float
    ) -> None:
        signature = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if signature == self._signature:
            return
        if self._signature and signature[1:] != self._signature[1:] and self.hint is Hint.MOVED_IN:
            self.hint = Hint.CHANGED
        self._signature = signature
        self._since = monotonic
        if patience.trust_clock:
            self._since -= max(0.0, clock - status.st_ctime)

    def _judge_contents(self, fd: int, size: int, patience: Patience, still: float) -> Verdict:
        if kind_of(self.name) is None:
            fault = "its name ends in none of .txt, .png, .jpg, .jpeg, .webp"
            return self._until(patience.incomplete, still, fault)
        if size == 0:
            return self._until(patience.incomplete, still, "it is empty")
        if kind_of(self.name) == "picture" and os.pread(fd, len(SIGNATURE), 0) == SIGNATURE:
            self._scanner = self._scanner or PngScanner()
            if self._scanner.look(fd) == "complete":
                return Ready()
            return self._until(patience.incomplete, still, self._scanner.reason)
        if self.hint is Hint.MOVED_IN:
            return Ready()
        needed = patience.after_close if self.hint is Hint.CLOSED else patience.settle
        return self._until(needed, still, "")

    def _until(self, needed: float, still: float, fault: str) -> Verdict:
        return Ready(fault) if still >= needed else Wait(needed - still)
