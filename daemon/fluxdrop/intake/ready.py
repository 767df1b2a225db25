"""Decide when a dropped file is complete: a `Candidate` follows one file until it is."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from fluxdrop.intake.png import SIGNATURE, PngScanner
from fluxdrop.jobs.fault import Fault
from fluxdrop.jobs.input_names import WHAT_TO_DROP, kind_of


class Hint(Enum):
    """What an event reported about a file."""

    CHANGED = 0
    CLOSED = 1
    """Closed after writing."""
    MOVED_IN = 2
    """Renamed to its present path, so it was written elsewhere."""


class Ready(NamedTuple):
    """The file can be claimed."""

    fault: str = ""
    """Why its job has to fail, as in `Fault.text`; empty if it does not."""


class Wait(NamedTuple):
    """The file has to be looked at again after *seconds*, or at the next event."""

    seconds: float


class Gone(NamedTuple):
    """There is no such file, or it is not a regular file."""

    irregular: bool = False


Readiness = Ready | Wait | Gone


@dataclass(frozen=True, slots=True)
class ReadinessPolicy:
    """How long to wait for a file."""

    settle: float
    """Seconds without a change after which a file counts as complete."""
    incomplete: float
    """Seconds without a change after which an incomplete file fails."""
    trust_clock: bool = True
    """Whether the filesystem's times come from this machine's clock."""
    max_bytes: int = 256 * 1024**2
    """A larger PNG is not scanned for completeness, as it is refused anyway."""

    @property
    def settle_after_close(self) -> float:
        """Seconds that a closed file has to stay unchanged: some programs reopen a file to append."""
        return self.settle / 2


@dataclass(slots=True)
class Candidate:
    """One file in the inbox, known by its name in the folder that holds it."""

    name: str
    hint: Hint | None = None
    """What the last event reported; None before the first one."""
    _signature: tuple[int, ...] = ()
    _since: float = 0.0
    _scanner: PngScanner | None = None

    def record_event(self, hint: Hint) -> None:
        """Record an event. It counts as a change of the file, whatever the file's times say."""
        self.hint = hint
        self._signature = ()

    def judge(
        self, folder_fd: int, policy: ReadinessPolicy, monotonic: float, clock: float
    ) -> Readiness:
        """Look at the file and decide whether it can be claimed.

        Args:
            folder_fd: The open folder that holds the file.
            policy: How long to wait.
            monotonic: The current time by `time.monotonic`, in seconds.
            clock: The current time by `time.time`, in seconds.

        Raises:
            OSError: The file cannot be looked at.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            status = os.stat(self.name, dir_fd=folder_fd, follow_symlinks=False)
        except FileNotFoundError:
            return Gone()
        if not stat.S_ISREG(status.st_mode):
            return Gone(irregular=True)
        try:
            fd = os.open(self.name, flags, dir_fd=folder_fd)
        except PermissionError:
            # A program may set the permissions last.
            unchanged_for = self._unchanged_seconds(status, policy, monotonic, clock)
            fault = Fault("unreadable", "the daemon has no permission to read it")
            return self._ready_after(policy.incomplete, unchanged_for, fault)
        try:
            status = os.fstat(fd)
            unchanged_for = self._unchanged_seconds(status, policy, monotonic, clock)
            return self._judge_contents(fd, status.st_size, policy, unchanged_for)
        finally:
            os.close(fd)

    def unchanged(self, status: os.stat_result) -> bool:
        """Return whether *status* shows the file, with the contents, that was looked at last."""
        same = (status.st_ino, status.st_size, status.st_mtime_ns) == self._signature[:3]
        return same and stat.S_ISREG(status.st_mode)

    def _unchanged_seconds(
        self, status: os.stat_result, policy: ReadinessPolicy, monotonic: float, clock: float
    ) -> float:
        """Return for how many seconds the file has not changed."""
        signature = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if signature != self._signature:
            self._since = monotonic
            if self._signature and self.hint is Hint.MOVED_IN:
                self.hint = Hint.CHANGED
            if self.hint is None and not self._signature and policy.trust_clock:
                # The file was found by a scan, so it may have been there for long.
                self._since -= max(0.0, clock - status.st_ctime)
            self._signature = signature
        return monotonic - self._since

    def _judge_contents(
        self, fd: int, size: int, policy: ReadinessPolicy, unchanged_for: float
    ) -> Readiness:
        kind = kind_of(self.name)
        if kind is None:
            fault = Fault("unknown", f"its name is not that of {WHAT_TO_DROP}")
            return self._ready_after(policy.incomplete, unchanged_for, fault)
        if size == 0:
            return self._ready_after(
                policy.incomplete, unchanged_for, Fault("incomplete", "it is empty")
            )
        is_picture = kind == "picture" and size <= policy.max_bytes
        if is_picture and SIGNATURE.startswith(os.pread(fd, len(SIGNATURE), 0)):
            if self._scanner is None or unchanged_for >= policy.incomplete:
                # Scan the whole file for the final decision: its beginning may have been rewritten.
                self._scanner = PngScanner()
            if self._scanner.scan(fd) == "complete":
                return Ready()
            fault = Fault("incomplete", self._scanner.reason)
            return self._ready_after(policy.incomplete, unchanged_for, fault)
        if self.hint is Hint.MOVED_IN:
            return Ready()
        needed = policy.settle_after_close if self.hint is Hint.CLOSED else policy.settle
        return self._ready_after(needed, unchanged_for, None)

    def _ready_after(self, needed: float, unchanged_for: float, fault: Fault | None) -> Readiness:
        if unchanged_for < needed:
            return Wait(needed - unchanged_for)
        return Ready(fault.text) if fault else Ready()
