"""Decide when a dropped file is complete: a `Candidate` follows one file until it is."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from fluxdrop.intake.whole import scanner_for
from fluxdrop.intake.whole.jpeg import shows_all_scans
from fluxdrop.intake.whole.json_text import ends_early
from fluxdrop.intake.whole.png import PngScanner
from fluxdrop.intake.whole.scanner import Scanner, State
from fluxdrop.intake.writers import is_open_by_lease
from fluxdrop.jobs.fault import Fault
from fluxdrop.jobs.input_names import WHAT_TO_DROP, InputKind, kind_of

_DECODING_SECONDS = 0.1


class Hint(Enum):
    """What an event reported about a file."""

    CHANGED = 0
    """Created, linked or changed in another way."""
    CLOSED = 1
    """Closed after writing."""
    MOVED_IN = 2
    """Renamed to its present path, so it was written elsewhere."""
    WRITTEN = 3
    """Written to by a program that did not close it yet."""


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
    """A larger picture is not scanned for completeness, as it is refused anyway."""
    max_prompt_bytes: int = 1024**2
    """A larger prompt is not scanned either."""
    is_open: Callable[[int], bool | None] = is_open_by_lease
    """Whether anybody has the file with a descriptor open for writing; None if that is not known."""
    shows_all: Callable[[int], bool | None] = shows_all_scans
    """Whether all scans of a JPEG without an end decode; None if that is not known yet."""

    @property
    def settle_after_close(self) -> float:
        """Seconds that a closed picture has to stay unchanged: some programs reopen a file to append.

        A prompt has no structure that tells whether it is whole, so it has to stay unchanged for all of `settle`.
        """
        return self.settle / 2


@dataclass(slots=True)
class Candidate:
    """One file in the inbox, known by its name in the folder that holds it."""

    name: str
    kind_name: str = ""
    """The name that tells the file's kind, if it is not `name`."""
    hint: Hint | None = None
    """What the last event reported; None before the first one."""
    _signature: tuple[int, ...] = ()
    _since: float = 0.0
    _scanner: Scanner | None = None
    _undecodable: tuple[int, ...] = ()
    """The signature with which a JPEG's scans did not decode."""

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

    @property
    def _kind(self) -> InputKind | None:
        return kind_of(self.kind_name or self.name)

    def _judge_contents(
        self, fd: int, size: int, policy: ReadinessPolicy, unchanged_for: float
    ) -> Readiness:
        kind = self._kind
        if kind is None:
            fault = Fault("unknown", f"its name is not that of {WHAT_TO_DROP}")
            return self._ready_after(policy.incomplete, unchanged_for, fault)
        if size == 0:
            return self._ready_after(
                policy.incomplete, unchanged_for, Fault("incomplete", "it is empty")
            )
        state: State = "plausible"
        if kind == "picture" and size <= policy.max_bytes:
            state = self._scan(fd, policy, unchanged_for)
        elif kind == "prompt" and size <= policy.max_prompt_bytes and ends_early(fd, size):
            # It may be a prompt that only looks like JSON, so whoever reads it decides.
            return self._ready_after(policy.incomplete, unchanged_for, None)
        if self._scanner is not None and state in ("incomplete", "damaged"):
            fault = Fault("incomplete", self._scanner.reason)
            return self._ready_after(policy.incomplete, unchanged_for, fault)
        return self._judge_whole(fd, state, policy, unchanged_for)

    def _scan(self, fd: int, policy: ReadinessPolicy, unchanged_for: float) -> State:
        """Return what the picture is by its structure; ``plausible`` if its contents are those of no picture."""
        found = scanner_for(fd)
        # Scan the whole file for the final decision: its beginning may have been rewritten.
        if type(found) is not type(self._scanner) or unchanged_for >= policy.incomplete:
            self._scanner = found
        return self._scanner.scan(fd) if self._scanner else "plausible"

    def _judge_whole(
        self, fd: int, state: State, policy: ReadinessPolicy, unchanged_for: float
    ) -> Readiness:
        """Decide about a file that is whole by its structure, or has none: it may still be written to."""
        if state == "complete" and isinstance(self._scanner, PngScanner) and not policy.is_open(fd):
            # The checksums say that its writer has nothing left to write, and nobody can write to it any more.
            return Ready()
        is_closed_picture = self.hint is Hint.CLOSED and self._kind == "picture"
        needed = policy.settle_after_close if is_closed_picture else policy.settle
        if self.hint is Hint.MOVED_IN or state == "complete":
            needed = 0.0
        if unchanged_for >= needed and self._is_open(fd, policy):
            left = policy.incomplete - unchanged_for
            if left > 0:
                # Its writer may end without an event.
                return Wait(min(left, policy.settle))
        if state == "unended" and unchanged_for >= needed:
            fault = Fault("incomplete", self._scanner.reason if self._scanner else "")
            shows_all = self._shows_all(fd, policy)
            if shows_all is None:
                return Wait(_DECODING_SECONDS)
            if not shows_all:
                return self._ready_after(policy.incomplete, unchanged_for, fault)
        return self._ready_after(needed, unchanged_for, None)

    def _is_open(self, fd: int, policy: ReadinessPolicy) -> bool:
        is_open = policy.is_open(fd)
        return self.hint is Hint.WRITTEN if is_open is None else is_open

    def _shows_all(self, fd: int, policy: ReadinessPolicy) -> bool | None:
        """Return whether the scans of the JPEG all decode; ask only once for each version of it."""
        if self._undecodable == self._signature:
            return False
        shows_all = policy.shows_all(fd)
        if shows_all is False:
            self._undecodable = self._signature
        return shows_all

    def _ready_after(self, needed: float, unchanged_for: float, fault: Fault | None) -> Readiness:
        if unchanged_for < needed:
            return Wait(needed - unchanged_for)
        return Ready(fault.text) if fault else Ready()
