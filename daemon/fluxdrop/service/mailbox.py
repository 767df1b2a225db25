"""What other threads tell the main loop, which alone changes what it owns: settings, intake, claims, reports."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.claim import NewJob
from fluxdrop.records.result import Record
from fluxdrop.service.items import Model


@dataclass(frozen=True, slots=True)
class Ended:
    """Jobs have ended: each one's record, with its path below the root."""

    records: list[tuple[Record, str]]


@dataclass(frozen=True, slots=True)
class Claimed:
    """The *jobs* are to be taken on: new ones, or ones whose names were taken meanwhile."""

    jobs: list[NewJob]


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The job *job_id* can neither be done nor be given back; it stays claimed until the next start."""

    job_id: str


@dataclass(frozen=True, slots=True)
class ModelChanged:
    """*model* is in use, and the one before it has been ended."""

    model: Model


@dataclass(frozen=True, slots=True)
class ModelRefused:
    """The model that was to be used cannot be, because of *error*."""

    error: FluxdropError


Message = Ended | Claimed | Abandoned | ModelChanged | ModelRefused


class Mailbox:
    """Messages in the order in which they were posted. Any thread posts; the main loop receives.

    *wake* is called after each post, by the thread that posts.
    """

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.wake: Callable[[], None] = lambda: None

    def post(self, message: Message) -> None:
        """Leave *message* for the main loop. Never waits."""
        self._messages.put(message)
        self.wake()

    def receive(self) -> Iterator[Message]:
        """Take out what is there, without waiting."""
        while True:
            try:
                yield self._messages.get_nowait()
            except queue.Empty:
                return
