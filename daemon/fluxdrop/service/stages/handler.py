"""The work of a stage: a handler, and the batch of items that it has in hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.job import Job
from fluxdrop.processes.child import ChildDied
from fluxdrop.service.shutdown import Stopping
from fluxdrop.service.supervision.liveness import report_progress

IDLE_CHECK_SECONDS = 10.0


class Item(Protocol):
    """What passes through a stage."""

    @property
    def job(self) -> Job | None:
        """The job that the item is about, if any."""


T = TypeVar("T", bound=Item)


class Handler(ABC, Generic[T]):
    """The work of one stage. Everything but the constructor runs on the stage's thread."""

    name: str
    batch_size: int = 1
    """The largest number of items in a batch."""
    idle_check_seconds: float | None = None
    """How often `on_idle` is called while no items come; None means never."""

    def open(self) -> None:
        """Get ready before the first item. An error that is not transient ends the daemon's start."""

    @abstractmethod
    def handle(self, batch: Batch[T]) -> None:
        """Handle the unsettled items of *batch*, and settle each when it is done.

        Items that are not settled when this returns count as settled. May raise anything (see the
        module), after which it is called again with the items that were not.
        """

    @abstractmethod
    def fail(self, item: T, error: FluxdropError) -> None:
        """End *item* as failed, because of *error*."""

    def can_take(self, item: T) -> bool:
        """Return whether *item* may be handled now; otherwise it waits, and those behind it may be first.

        Called with the queue locked, so it must not wait. `Stage.recheck` has it asked again.
        """
        return True

    def group(self, item: T) -> Hashable:
        """Return what the items of a batch have in common: those of other groups wait for another batch."""
        return None

    def on_idle(self) -> None:
        """Check the resources that the stage keeps, while no items come."""

    def close(self) -> None:
        """Release the resources that the stage keeps. No other call follows."""


@dataclass(frozen=True, slots=True)
class BatchOwner(Generic[T]):
    """What a stage does for its batches, on its thread."""

    end: Callable[[T, Exception], None]
    """Fails an item because of an error; if that is transient, raises it."""
    may_repeat: Callable[[T, Exception], bool]
    """Returns whether an item is to be handled again, as a child died over it, and counts that death."""
    take: Callable[[int], list[T]]
    """Returns up to a number of items that wait, which are in hand from now on."""
    settled: Callable[[], None]
    """Counts one item less in hand."""


class Batch(Generic[T]):
    """The items that a handler has in hand, each until it is settled."""

    def __init__(self, items: Sequence[T], owner: BatchOwner[T]) -> None:
        """Begin with no item settled; *owner* is the stage, as far as batches need it."""
        self._items = {id(item): item for item in items}
        self._owner = owner

    def __len__(self) -> int:
        return len(self._items)

    @property
    def unsettled(self) -> list[T]:
        """The items that are not settled, in order."""
        return list(self._items.values())

    def settle(self, *items: T) -> None:
        """Mark items as done, whether handed on or failed."""
        for item in items:
            if self._items.pop(id(item), None) is not None:
                self._owner.settled()
        report_progress()

    def take_more(self, most: int) -> list[T]:
        """Add up to *most* items that wait and can be taken, without waiting for any; return them.

        For a handler that goes on with other items while some are in hand.
        """
        more = self._owner.take(most)
        self._items |= {id(item): item for item in more}
        return more

    def conclude(self, item: T, error: Exception) -> None:
        """Do with *item* what the policy says of *error*, which is over this item alone.

        It fails and is settled, or stays in hand to be handled again, as a child died over it. Transient errors are
        raised.
        """
        if not self._owner.may_repeat(item, error):
            self._owner.end(item, error)
            self.settle(item)

    @contextmanager
    def guard(self, item: T) -> Iterator[None]:
        """End only *item*, by the policy, if the body raises an error.

        Stopping, ChildDied and transient errors are raised.
        """
        try:
            yield
        except (Stopping, ChildDied):
            raise
        except Exception as error:
            self._owner.end(item, error)
            self.settle(item)
