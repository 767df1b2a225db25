"""What a receiver of records is, and the ways in which it does not take one."""

from __future__ import annotations

from typing import Protocol


class NotTaken(Exception):
    """A record was not taken; *problem* is a sentence without its full stop."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class Refused(NotTaken):
    """This record will never be taken."""


class Failed(NotTaken):
    """This record was not taken this time; others may be."""


class Away(NotTaken):
    """No record is taken now; *seconds* is how long the receiver asks to be left alone, if it says so."""

    def __init__(self, problem: str, seconds: float = 0.0) -> None:
        super().__init__(problem)
        self.seconds = seconds


class Receiver(Protocol):
    """Takes records, one at a time. One thread calls `hand`, any thread may call `abort`."""

    def hand(self, job: str, data: bytes) -> None:
        """Hand over the record *data*, in JSON, of *job*; return when it was taken, after a bounded time.

        Raises:
            NotTaken: It was not; see its subclasses.
        """

    def abort(self) -> None:
        """Make a call of `hand` that is in progress, and later ones, raise `Failed` soon."""
