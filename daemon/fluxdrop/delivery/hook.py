"""The thread of one hook: it hands what is owed to a receiver until it is taken."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from contextlib import suppress

from fluxdrop.delivery.receiver import Away, NotTaken, Receiver, Refused
from fluxdrop.jobs.outbox import Outbox, Owed
from fluxdrop.logs import get_logger

log = get_logger("fluxdrop.hooks")

FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 300.0
_ERROR_PAUSE_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
_POLL_SECONDS = 0.02


class Hook:
    """Hands the debts to the outlet *name* to *receiver*, at least once each, on a thread of its own.

    A record that is not taken is tried again after a pause that doubles with each try, up to five minutes, and is never
    given up; the others do not wait for it. While the receiver is away, all wait. A record that is refused is dropped,
    and the log names its job.
    """

    def __init__(
        self,
        name: str,
        receiver: Receiver,
        outbox: Outbox,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        """Prepare the thread; `start` starts it.

        Args:
            name: The outlet's name.
            receiver: Takes the records.
            outbox: Has what is owed.
            first_pause_seconds: The pause after the first failure, at most.
        """
        self.name = name
        self.taken = 0
        """How many records were taken."""
        self.problem = ""
        """Why the last record was not taken; empty if it was."""
        self._receiver = receiver
        self._outbox = outbox
        self._first_pause = first_pause_seconds
        self._failures = 0
        """How often in a row the receiver was away."""
        self._news = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Make the thread see that there is something new; return at once."""
        self._news.set()

    def close(self, drain_seconds: float = 0.0) -> None:
        """Stop the thread soon; what is owed stays owed.

        Args:
            drain_seconds: How long to wait until all that is due is taken, or something is not.
        """
        deadline = time.monotonic() + drain_seconds
        while time.monotonic() < deadline and not self.problem and self._is_due():
            time.sleep(_POLL_SECONDS)
        self._closing.set()
        self._news.set()
        self._receiver.abort()
        self._thread.join(_CLOSE_SECONDS)

    def _is_due(self) -> bool:
        with suppress(OSError, sqlite3.Error):
            return self._outbox.due(self.name, time.time(), MAX_PAUSE_SECONDS) is not None
        return False

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                pause = self._step()
            except (OSError, sqlite3.Error) as error:
                if not self._closing.is_set():
                    self._report(f"the index cannot be used: {error}")
                pause = _ERROR_PAUSE_SECONDS
            if pause is None or pause > 0.0:
                self._wait(pause)

    def _wait(self, pause: float | None) -> None:
        """Wait for *pause* seconds or, while the receiver is not away, for news."""
        if self._failures and pause is not None:
            self._closing.wait(pause)
        else:
            self._news.wait(pause)

    def _step(self) -> float | None:
        """Hand over one record; return how long to wait then, None for until there is something new."""
        self._news.clear()
        owed = self._outbox.due(self.name, time.time(), MAX_PAUSE_SECONDS)
        if owed is None:
            due = self._outbox.next_due(self.name)
            return None if due is None else max(0.01, due - time.time())
        try:
            self._receiver.hand(owed.job, owed.data)
        except NotTaken as error:
            return 0.0 if self._closing.is_set() else self._handle(owed, error)
        except Exception as error:
            # A defect costs no record.
            return self._handle(owed, Away(f"{type(error).__name__}: {error}"))
        self._outbox.pay(self.name, [owed])
        self.taken += 1
        self._failures = 0
        self._report("")
        return 0.0

    def _handle(self, owed: Owed, error: NotTaken) -> float:
        """Put off or drop *owed*, which was not taken because of *error*; return how long to wait then."""
        if isinstance(error, Refused):
            self._outbox.refuse(self.name, owed, error.problem)
            self._failures = 0
            self._report("")
            log.error("hook refused a record", hook=self.name, job=owed.job, reason=error.problem)
            return 0.0
        self._report(error.problem)
        if isinstance(error, Away):
            self._failures += 1
            pause = max(self._pause(self._failures - 1), error.seconds)
            self._outbox.postpone(self.name, owed, time.time(), error.problem)
            return pause
        self._failures = 0
        due = time.time() + self._pause(owed.tries)
        self._outbox.postpone(self.name, owed, due, error.problem)
        return 0.0

    def _pause(self, tries: int) -> float:
        """Return the pause after a try that *tries* others went before: doubled by each, and not the same for all."""
        longest = min(self._first_pause * 2.0 ** min(tries, 20), MAX_PAUSE_SECONDS)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311

    def _report(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.warning("hook is behind", hook=self.name, reason=problem)
        elif self.problem and not problem:
            log.info("hook works again", hook=self.name)
        self.problem = problem
