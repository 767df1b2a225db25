"""Find files in the inbox, wait until each is complete, and claim it."""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fluxdrop.config import Settings
from fluxdrop.files.filesystem import filesystem_of, needs_polling, settle_seconds
from fluxdrop.files.folders import Folders
from fluxdrop.files.io_lock import hold_io_lock
from fluxdrop.files.layout import Root
from fluxdrop.files.transient import is_full
from fluxdrop.intake.event_queue import EventQueue
from fluxdrop.intake.ready import Candidate, Gone, Hint, ReadinessPolicy, Ready, Wait
from fluxdrop.intake.skipped import Skipped
from fluxdrop.intake.watch import Watch, reason
from fluxdrop.intake.whole.decoding_child import DecodingChild
from fluxdrop.intake.writers import Writers
from fluxdrop.jobs import claim as claims
from fluxdrop.jobs.input_names import InputKind, kind_of, scan
from fluxdrop.jobs.side_files import side_files
from fluxdrop.logs import get_logger
from fluxdrop.outage import OutageTracker

log = get_logger("fluxdrop.intake")

_POLL_SECONDS = 2.0
# The most files of a kind, and the most events, that are remembered. A later scan finds the rest when
# there is room. A new file takes the place of the one that has been incomplete the longest, so that
# incomplete files, however many, keep no other out.
_MAX_WAITING = 16_384
_MAX_EVENTS = 16_384
_MAX_FOLDERS = 64
_FULL_PAUSE_SECONDS = 1.0
# How many files are looked at in a step: few, so that the first of thousands are claimed early.
_MAX_JUDGED = 64
_DEAD_WATCH_SECONDS = 5.0


@dataclass(slots=True)
class _WaitingFile:
    """A file in the inbox that is not claimed yet."""

    candidate: Candidate
    due: float = 0.0
    """When to look at the file again, by `time.monotonic`."""
    fault: str | None = None
    """None until the file can be claimed; then why its job has to fail, or an empty string."""


class Intake:
    """Claims the files of the inbox in the order in which they became complete.

    One thread owns an Intake and calls its methods; any thread may call `wake`.
    """

    def __init__(
        self,
        root: Root,
        settings: Settings,
        accept: Callable[[claims.NewJob], None],
        has_room: Callable[[bool], bool],
        reuse_folder: Callable[[Path], bool] = lambda _folder: False,
    ) -> None:
        """Prepare the intake; the first `step` scans the inbox.

        Args:
            root: The root whose inbox is watched.
            settings: The settings to begin with.
            accept: Called with each claimed job.
            has_room: Returns whether one more prompt (True) or other file (False) may be
                claimed.
            reuse_folder: Renames an ended job's empty folder to the given path; returns False
                if it has none.
        """
        self._root = root
        self._accept = accept
        self._has_room = has_room
        self._reuse_folder = reuse_folder
        self._folders = Folders(root.inbox)
        self.filesystem = filesystem_of(root.inbox)
        """The type of the inbox's filesystem."""
        self.polling = needs_polling(self.filesystem)
        """Whether that filesystem reports no events, so that files are found by frequent scans alone."""
        self._writers = Writers()
        self._decoding = DecodingChild(settings.max_pixels)
        self.apply(settings)
        self._events = EventQueue(_MAX_EVENTS)
        self._waiting: dict[str, _WaitingFile] = {}
        self._counts: Counter[InputKind | None] = Counter()
        """How many waiting files there are of each kind."""
        self._overflowed: set[InputKind | None] = set()
        """The kinds of which the last scan found more files than are remembered."""
        self._unfinished: dict[InputKind | None, dict[str, None]] = {}
        """Files that were looked at and are not complete, by kind, the longest known first."""
        self._scan_offsets: dict[InputKind | None, int] = {}
        """How many files of each kind the next scan skips, as earlier scans had room for them."""
        self._due: list[tuple[float, str]] = []
        """A heap of the times at which to look at files again, with their paths.

        Entries that were superseded stay in it until their time.
        """
        # Prompts queue apart from pictures, so that one slow kind does not hold up the other.
        self._complete: dict[bool, deque[str]] = {True: deque(), False: deque()}
        self._skipped = Skipped()
        self._last_scan = 0.0
        self._next_scan = 0.0
        self._watch: Watch | None = None
        self._folder_outage = OutageTracker("inbox")
        self._claim_outage = OutageTracker("claim")
        self._watch_outage = OutageTracker("events")
        self._overflow_outage = OutageTracker("inbox")
        self._next_claim = 0.0

    def apply(self, settings: Settings) -> None:
        """Use *settings* from now on."""
        self._scan_seconds = (
            min(_POLL_SECONDS, settings.scan_seconds) if self.polling else settings.scan_seconds
        )
        self._is_ignored = side_files(settings.ignore)
        self._policy = ReadinessPolicy(
            settle_seconds(settings.settle_seconds, self.filesystem),
            settings.incomplete_seconds,
            trust_clock=not self.polling,
            max_bytes=settings.max_file_bytes,
            max_prompt_bytes=settings.max_prompt_bytes,
            is_open=self._writers.is_open,
            shows_all=self._decoding.shows_all,
        )
        self._decoding.max_pixels = settings.max_pixels

    @property
    def waiting(self) -> int:
        """How many files in the inbox are known and not claimed yet.

        The files of a kind beyond the most that are remembered count as one.
        """
        return len(self._waiting) + len(self._overflowed)

    @property
    def skipped(self) -> dict[str, str]:
        """Paths that were skipped since the last scan began, with the reasons; the next scan tries them again.

        If there are very many, only the first.
        """
        return self._skipped.reasons()

    @property
    def degraded(self) -> list[str]:
        """Why the intake is degraded: its outages and the files that it skips, one sentence each."""
        parts = [self._folder_outage, self._claim_outage, self._watch_outage]
        held = [str(part) for part in (*parts, self._overflow_outage) if part.ongoing]
        return [*held, *self._skipped.summary(str(self._root.inbox))]

    @property
    def irregular(self) -> list[str]:
        """Which symlinks and other irregular files lie in the inbox and are skipped, one sentence each."""
        return list(self._skipped.irregular_summary())

    @property
    def watching(self) -> bool:
        """Return whether events arrive. If not, the scans still find every file."""
        return self._watch is not None and self._watch.alive()

    def wake(self) -> None:
        """Make a waiting `step` go on at once. Any thread may call this."""
        self._events.wake()

    def step(self, timeout: float = 5.0) -> None:
        """Wait for something to do, at most *timeout* seconds, and do it."""
        self._take_events(timeout)
        if self._watch is not None and not self._watch.alive():
            self._next_scan = min(self._next_scan, self._last_scan + _DEAD_WATCH_SECONDS)
        self._writers.begin_turn()
        with hold_io_lock(), closing(self._folders):
            if time.monotonic() >= self._next_scan:
                self._scan()
            self._judge_due()
            self._claim_complete()
            self._rescan_if_room()

    def close(self) -> None:
        """Stop watching the inbox, and end the process that decodes."""
        self._decoding.close()
        if self._watch is not None:
            self._watch.close()

    def _take_events(self, timeout: float) -> None:
        now = time.monotonic()
        until = min(now + timeout, self._next_scan, self._due[0][0] if self._due else now + timeout)
        files, folders = self._events.take(max(0.0, until - now))
        for path, hint in files:
            if not self._is_in_ignored(path):
                self._track(path, hint)
        if len(folders) > _MAX_FOLDERS:
            # One scan of everything takes no longer.
            self._next_scan = 0.0
            return
        for folder in folders:
            if not self._is_in_ignored(folder):
                for found in self._files_below(folder):
                    self._track(found, None)

    def _on_event(self, path: str, hint: Hint | None) -> None:
        if not self._events.put(path, hint):
            self._next_scan = 0.0

    def _track(self, path: str, hint: Hint | None) -> bool:
        """Add *path* to the waiting files, or apply *hint* to it; return False if there is no room for it."""
        waiting = self._waiting.get(path)
        if waiting is None:
            kind = kind_of(path)
            if self._counts[kind] >= _MAX_WAITING:
                self._overflowed.add(kind)
                if not self._make_room(kind):
                    return False
            waiting = _WaitingFile(Candidate(path.rpartition("/")[2]))
            self._waiting[path] = waiting
            self._counts[kind] += 1
        elif hint is None:
            return True
        if hint is not None:
            waiting.candidate.record_event(hint)
            waiting.fault = None
        self._schedule(path, waiting, time.monotonic())
        return True

    def _make_room(self, kind: InputKind | None) -> bool:
        """Forget the file of this kind that has been incomplete the longest; return False if there is none."""
        unfinished = self._unfinished.get(kind)
        if not unfinished:
            return False
        self._forget(next(iter(unfinished)))
        self._overflow_outage.begin(
            f"more than {_MAX_WAITING:,} files wait there and many are not whole, so files may be found late"
        )
        return True

    def _forget(self, path: str) -> None:
        if self._waiting.pop(path, None) is not None:
            kind = kind_of(path)
            self._counts[kind] -= 1
            self._unfinished.get(kind, {}).pop(path, None)

    def _rescan_if_room(self) -> None:
        if any(self._counts[kind] <= _MAX_WAITING // 2 for kind in self._overflowed):
            self._next_scan = 0.0

    def _schedule(self, path: str, waiting: _WaitingFile, due: float) -> None:
        waiting.due = due
        heapq.heappush(self._due, (due, path))
        if len(self._due) > 4 * _MAX_WAITING:
            # Most entries are superseded, or of files that were forgotten.
            self._due = [(w.due, p) for p, w in self._waiting.items() if w.fault is None]
            heapq.heapify(self._due)

    def _scan(self) -> None:
        self._last_scan = time.monotonic()
        self._next_scan = self._last_scan + self._scan_seconds
        if self._folder_outage.attempt(self._root.inbox.stat, is_transient=lambda _error: True):
            self._ensure_watch()
        self._skipped.begin_scan()
        if not self._overflowed:
            self._overflow_outage.end()
        self._overflowed.clear()
        self._recheck_unfinished()
        offsets, self._scan_offsets = self._scan_offsets, {}
        seen: Counter[InputKind | None] = Counter()
        for path in self._files_below(""):
            kind = kind_of(path)
            if seen[kind] < offsets.get(kind, 0):
                self._overflowed.add(kind)
            elif not self._track(path, None):
                self._scan_offsets.setdefault(kind, seen[kind])
            seen[kind] += 1

    def _recheck_unfinished(self) -> None:
        """Schedule all incomplete files, as the event that reports their completion may be lost."""
        now = time.monotonic()
        self._due.clear()
        for path, waiting in self._waiting.items():
            if waiting.fault is None:
                self._schedule(path, waiting, now)

    def _ensure_watch(self) -> None:
        if self.polling or self.watching:
            return
        if self._watch is not None:
            log.warning("the watch of the inbox ended and is begun again")
            self._watch.close()
            self._watch = None
        self._watch_outage.attempt(self._begin_watch, is_transient=lambda _error: True)

    def _begin_watch(self) -> None:
        try:
            self._watch = Watch(self._root.inbox, self._on_event, self._root.requests, self.wake)
        except OSError as error:
            every = f"files are found by scans only, every {self._scan_seconds:g} s"
            raise OSError(f"{every}: {reason(error)}") from error

    def _judge_due(self) -> None:
        now = time.monotonic()
        judged = 0
        while judged < _MAX_JUDGED and self._due and self._due[0][0] <= now:
            due, path = heapq.heappop(self._due)
            waiting = self._waiting.get(path)
            if waiting is not None and waiting.due == due:
                self._judge(path, waiting)
                judged += 1

    def _judge(self, path: str, waiting: _WaitingFile) -> None:
        now = time.monotonic()
        try:
            folder_fd = self._folders.fd(path.rpartition("/")[0])
            verdict = waiting.candidate.judge(folder_fd, self._policy, now, time.time())
        except FileNotFoundError:
            verdict = Gone()
        except OSError as error:
            self._skip(path, f"it cannot be read: {error.strerror}")
            return
        except Exception as error:
            self._skip_defect(path, error)
            return
        match verdict:
            case Wait(seconds):
                self._unfinished.setdefault(kind_of(path), {})[path] = None
                self._schedule(path, waiting, now + max(seconds, 0.01))
            case Ready(fault):
                self._unfinished.get(kind_of(path), {}).pop(path, None)
                waiting.fault = fault
                self._complete[kind_of(path) == "prompt"].append(path)
            case Gone(irregular=True):
                self._skip(
                    path, "it is not a regular file; symlinks are not followed", irregular=True
                )
            case Gone():
                self._forget(path)

    def _claim_complete(self) -> None:
        if time.monotonic() < self._next_claim:
            return
        for is_prompt, complete in self._complete.items():
            while complete and self._has_room(is_prompt):
                waiting = self._waiting.get(complete[0])
                if waiting is not None and waiting.fault is not None:
                    claim = partial(self._claim, complete[0], waiting.candidate, waiting.fault)
                    # The next file would meet the same full disk.
                    if not self._claim_outage.attempt(claim, is_transient=is_full):
                        self._next_claim = time.monotonic() + _FULL_PAUSE_SECONDS
                        return
                complete.popleft()
        if not any(self._complete.values()):
            # The file that could not be claimed may have been removed.
            self._claim_outage.end()

    def _claim(self, path: str, candidate: Candidate, fault: str) -> None:
        try:
            job = claims.claim(
                self._folders, self._root.work, path, candidate.unchanged, fault, self._reuse_folder
            )
        except OSError as error:
            if is_full(error):
                raise
            self._skip(path, f"it cannot be claimed: {error.strerror}")
            return
        except Exception as error:
            self._skip_defect(path, error)
            return
        if job is None:
            self._track(path, Hint.CHANGED)
        else:
            self._forget(path)
            self._accept(job)

    def _skip(
        self, path: str, reason: str, error: Exception | None = None, *, irregular: bool = False
    ) -> None:
        """Skip *path* until the next scan."""
        self._forget(path)
        self._skipped.add(path, reason, error, irregular=irregular)

    def _skip_defect(self, path: str, error: Exception) -> None:
        self._skip(path, f"fluxdrop failed on it: {type(error).__name__}", error)

    def _on_unreadable(self, folder: str, error: OSError) -> None:
        self._skip(folder or str(self._root.inbox), f"it cannot be read: {error.strerror}")

    def _files_below(self, folder: str) -> Iterator[str]:
        return scan(self._root.inbox, folder, self._on_unreadable, self._is_ignored)

    def _is_in_ignored(self, path: str) -> bool:
        return any(map(self._is_ignored, path.split("/")))
