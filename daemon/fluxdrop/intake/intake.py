"""The intake: finds files in the inbox, waits until each is whole, and claims it."""

from __future__ import annotations

import heapq
import os
import queue
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.intake import claim as claims
from fluxdrop.intake.filesystem import filesystem_of, needs_polling
from fluxdrop.intake.names import is_ignored, kind_of
from fluxdrop.intake.ready import Candidate, Gone, Hint, Patience, Ready, Wait
from fluxdrop.intake.scan import open_folder, scan
from fluxdrop.intake.watch import Watch
from fluxdrop.layout import Root
from fluxdrop.logs import get_logger

log = get_logger("fluxdrop.intake")

_POLL_SECONDS = 2.0
_RETRY_SECONDS = 1.0


class Claim(NamedTuple):
    """A claimed input: the job's *folder*, and why it has to fail, if it does."""

    folder: Path
    fault: str


@dataclass(slots=True)
class _Waiting:
    candidate: Candidate
    due: float


class Intake:
    """Feeds claims to *accept*, as many as *room* allows, in the order in which the files became whole.

    One thread owns an Intake and calls `step`; `wake` may be called from any.
    """

    def __init__(
        self,
        root: Root,
        settings: Settings,
        accept: Callable[[Claim], None],
        room: Callable[[bool], bool],
    ) -> None:
        self._root = root
        self._accept = accept
        self._room = room
        self.filesystem = filesystem_of(root.inbox)
        self.polling = needs_polling(self.filesystem)
        self._scan_seconds = (
            min(_POLL_SECONDS, settings.scan_seconds) if self.polling else settings.scan_seconds
        )
        self._patience = Patience(
            settings.settle_seconds, settings.incomplete_seconds, trust_clock=not self.polling
        )
        self._events: queue.SimpleQueue[tuple[str, Hint | None] | None] = queue.SimpleQueue()
        self._waiting: dict[str, _Waiting] = {}
        self._due: list[tuple[float, str]] = []
        # Prompts queue apart from pictures, so that one slow kind does not hold up the other.
        self._whole: dict[bool, deque[tuple[str, str]]] = {True: deque(), False: deque()}
        self._irregular: set[str] = set()
        self._next_scan = 0.0
        self._watch: Watch | None = None

    @property
    def waiting(self) -> int:
        """How many files were seen in the inbox and not claimed yet."""
        return len(self._waiting) + sum(len(whole) for whole in self._whole.values())

    @property
    def watching(self) -> bool:
        """Whether events arrive; without, the scans find every file all the same."""
        return self._watch is not None and self._watch.alive()

    def wake(self) -> None:
        """Make a `step` that waits look around at once."""
        self._events.put(None)

    def step(self, longest: float = 5.0) -> None:
        """Wait for something to do, at most *longest* seconds, and do it."""
        self._take_events(longest)
        if time.monotonic() >= self._next_scan:
            self._scan()
        self._judge_due()
        self._claim_whole()

    def close(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.close()

    def _take_events(self, longest: float) -> None:
        now = time.monotonic()
        until = min(now + longest, self._next_scan, self._due[0][0] if self._due else now + longest)
        try:
            event = self._events.get(timeout=max(0.0, until - now))
            while True:
                if event is not None:
                    self._notice(*event)
                event = self._events.get_nowait()
        except queue.Empty:
            pass

    def _notice(self, path: str, hint: Hint | None) -> None:
        if any(is_ignored(part) for part in PurePosixPath(path).parts):
            return
        if hint is None:
            for found in scan(self._root.inbox, path):
                self._consider(found, Hint.CHANGED)
        else:
            self._consider(path, hint)

    def _consider(self, path: str, hint: Hint | None) -> None:
        """Take up *path*; with a hint of what happened to it, anew."""
        waiting = self._waiting.get(path)
        if waiting is None:
            waiting = _Waiting(Candidate(PurePosixPath(path).name), 0.0)
            self._waiting[path] = waiting
        elif hint is None:
            return
        if hint is not None:
            waiting.candidate.notice(hint)
        self._schedule(path, waiting, time.monotonic())

    def _schedule(self, path: str, waiting: _Waiting, due: float) -> None:
        waiting.due = due
        heapq.heappush(self._due, (due, path))

    def _scan(self) -> None:
        self._next_scan = time.monotonic() + self._scan_seconds
        self._keep_watch()
        whole = {path for paths in self._whole.values() for path, _fault in paths}
        try:
            for path in scan(self._root.inbox):
                if path not in whole:
                    self._consider(path, None)
        except OSError as error:
            log.error("inbox cannot be read", inbox=str(self._root.inbox), reason=error.strerror)
        self._take_requests()

    def _keep_watch(self) -> None:
        if self.polling or self.watching:
            return
        if self._watch is not None:
            log.warning("the watch of the inbox ended and is begun again")
            self._watch.close()
            self._watch = None
        try:
            self._watch = Watch(
                self._root.inbox,
                lambda path, hint: self._events.put((path, hint)),
                self._root.requests,
                self._on_request,
            )
        except OSError as error:
            log.warning("no events, scans only", reason=error.strerror, every=self._scan_seconds)

    def _judge_due(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due, path = heapq.heappop(self._due)
            waiting = self._waiting.get(path)
            if waiting is not None and waiting.due == due:
                self._judge(path, waiting)

    def _judge(self, path: str, waiting: _Waiting) -> None:
        now = time.monotonic()
        try:
            folder_fd = open_folder(self._root.inbox, str(PurePosixPath(path).parent))
        except OSError:
            del self._waiting[path]
            return
        try:
            verdict = waiting.candidate.judge(folder_fd, self._patience, now, time.time())
        finally:
            os.close(folder_fd)
        match verdict:
            case Wait(seconds):
                self._schedule(path, waiting, now + max(seconds, 0.01))
            case Ready(fault):
                del self._waiting[path]
                self._whole[kind_of(path) == "prompt"].append((path, fault))
            case Gone(irregular):
                del self._waiting[path]
                if irregular and path not in self._irregular:
                    self._irregular.add(path)
                    log.warning("left alone: neither a file nor a folder", file=path)

    def _claim_whole(self) -> None:
        for is_prompt, whole in self._whole.items():
            while whole and self._room(is_prompt):
                path, fault = whole.popleft()
                try:
                    folder = claims.claim(self._root.inbox, self._root.work, path)
                except OSError as error:
                    whole.appendleft((path, fault))
                    self._next_scan = min(self._next_scan, time.monotonic() + _RETRY_SECONDS)
                    log.error("claim failed", file=path, reason=error.strerror)
                    break
                if folder is not None:
                    self._accept(Claim(folder, fault))

    def _on_request(self) -> None:
        self._next_scan = 0.0
        self.wake()

    def _take_requests(self) -> None:
        for request in sorted(self._root.requests.iterdir()):
            if request.name.startswith(".") or request.is_symlink() or not request.is_dir():
                continue
            folder = self._root.work / request.name
            try:
                request.rename(folder)
            except OSError as error:
                raise FluxdropError(f"{request} cannot be claimed: {error.strerror}.") from error
            self._accept(Claim(folder, ""))
