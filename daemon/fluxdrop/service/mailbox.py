"""Messages from other threads to the main loop.

Settings, intake, claims and reports belong to the main loop, and only its thread changes them.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.claim import NewJob
from fluxdrop.records.result import Record
from fluxdrop.service.items import Model


@dataclass(frozen=True, slots=True)
class Ended:
    """Jobs have ended."""

    records: list[tuple[Record, str]]
    """Each job's record, and its JSON file's path relative to the root."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The *jobs* have to be admitted: new jobs, or ones whose planned names were taken."""

    jobs: list[NewJob]


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The input of the job in *folder* was written to after it was taken, so the job has to be done again."""

    folder: Path


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A job can neither be done nor published as failed; it stays claimed until the next start."""

    job_id: str


@dataclass(frozen=True, slots=True)
class ModelChanged:
    """*model* is in use, and the one before it was closed."""

    model: Model


@dataclass(frozen=True, slots=True)
class ModelRefused:
    """The requested model cannot be used, because of *error*."""

    error: FluxdropError


Message = Ended | Claimed | Rewritten | Abandoned | ModelChanged | ModelRefused


class Mailbox:
    """A queue of messages. Any thread may post; only the main loop receives."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.wake: Callable[[], None] = lambda: None
        """Called after each post, on the thread that posts."""

    def post(self, message: Message) -> None:
        """Queue a message; return at once."""
        self._messages.put(message)
        self.wake()

    def receive(self) -> Iterator[Message]:
        """Yield the queued messages, oldest first, without waiting for more."""
        while True:
            try:
                yield self._messages.get_nowait()
            except queue.Empty:
                return
