"""Hands: what makes pictures for the daemon, on this machine or on the hosts of a cluster.

A run of a pipeline is begun on hands that have room, and ends in exactly one outcome. Which attempts at a job are
made, and what becomes of an outcome, is decided by whoever begins the runs.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from fluxdrop.errors import FluxdropError
    from fluxdrop.generate.messages import GeneratedImage
    from fluxdrop.generate.orders import GenerationOrder
    from fluxdrop.generate.parameters import PromptParameters
    from fluxdrop.processes.child import ChildDied

HostState = Literal["ready", "busy", "unused", "lost"]

OnStep = Callable[[str, int, int], None]
"""Called with a run's id, the number of finished steps and that of all steps."""

attempts_lost: Counter[tuple[str, str]] = Counter()
"""How many attempts came to nothing through no fault of their jobs, by host and reason, for the metrics.

What differs from one time to the next, such as a number of bytes, follows a colon in the reason.
"""

dispatch_seconds: deque[float] = deque(maxlen=10_000)
"""How long it took from `Hands.begin` until a run was with a host, of the runs that the metrics have not counted."""


class Run(NamedTuple):
    """One run of a pipeline."""

    id: str
    """Unique for each attempt: an outcome of another attempt is never taken for this one's."""
    orders: Sequence[GenerationOrder]
    """At least one picture; all have the same `Hands.batch_key`, and a seed."""
    jobs: Sequence[str] = ()
    """The job of each order, for `HostStatus.jobs`."""
    alone: bool = False
    """Whether no other run of these hands may be on the same host meanwhile, as hosts were lost over this one."""
    host_class: str = ""
    """The class of hosts that can make the same bytes as before, which is preferred if there is one."""


class Made(NamedTuple):
    """The pictures of a run were made."""

    run: str
    images: Sequence[GeneratedImage]
    """In the order of the run's orders."""
    host: str | None = None
    """The host's name; None on this machine."""
    host_class: str | None = None
    """The class of the host: on hosts of one class the same parameters make the same bytes."""


class Refused(NamedTuple):
    """A run cannot be done, and *error* says why. Another try would end in the same way."""

    run: str
    error: FluxdropError


class Died(NamedTuple):
    """The process that made the pictures died, on a host that lives."""

    run: str
    error: ChildDied


class HostLost(NamedTuple):
    """The host, or the way to it, was lost: that is not the fault of the run, which is made once more."""

    run: str
    host: str
    """Its name; empty if not this host alone was lost, but the cluster or what speaks to it, or on this machine the
    generator, with several runs in hand."""
    reason: str


Outcome = Made | Refused | Died | HostLost


class HostStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A host of the cluster, as this root sees it."""

    name: str
    state: HostState
    """``ready`` and idle, ``busy``, ``unused`` for a *reason*, or ``lost``."""
    reason: str = ""
    """Why it is unused or lost."""
    gpu: str = ""
    """The name of its GPU, or ``cpu``."""
    host_class: str = ""
    version: str = ""
    """Its fluxdrop."""
    slots: int = 0
    """How many runs it can make at a time."""
    jobs: list[str] = []
    """The ids of the jobs whose pictures it makes."""
    pictures_per_hour: float | None = None
    """None until it has made one."""
    last_seen: str = ""
    """RFC 3339."""


class Hands(Protocol):
    """What runs pipelines.

    One thread calls the methods, and must outlive the hands. The properties `pid`, `slots` and `outage` and the
    method `hosts` may be used by any thread, and never wait.
    """

    @property
    def pid(self) -> int | None:
        """The process id of the daemon's child that the hands work with; None while there is none."""

    @property
    def slots(self) -> int:
        """How many runs can be in hand at most, as far as is known; at least 1."""

    @property
    def room(self) -> int:
        """How many runs may be begun now."""

    @property
    def outage(self) -> str | None:
        """Why nothing can be begun for now, such as that the cluster cannot be reached; None if there is no reason."""

    def batch_key(self, parameters: PromptParameters) -> Hashable:
        """Return a key that is equal for pictures that one run of a pipeline can make.

        Raises:
            FluxdropError: Kind ``prompt`` or ``pipeline``, when the picture cannot be made.
        """

    def begin(self, run: Run) -> None:
        """Begin *run*; call this only while there is `room`. Raises nothing: what goes wrong is an outcome.

        A run that has to be alone waits for a host without another run, and meanwhile there is no room.
        """

    def finished(self, timeout: float, on_step: OnStep) -> Sequence[Outcome]:
        """Wait until a run has ended, or for about *timeout* seconds; return the outcome of each that has.

        Args:
            timeout: Seconds, 0 for no waiting.
            on_step: Called on this thread.

        Raises:
            Exception: What the hook raises with which the hands were made, such as Stopping.
        """

    def cancel(self, run: str) -> None:
        """End the run after its current step, if it has not ended. Its outcome is Refused, kind ``cancelled``."""

    def hosts(self) -> list[HostStatus]:
        """Return the hosts of the cluster; none on this machine."""

    def tend(self) -> None:
        """Check what is idle, and release what was idle for long. Called every few seconds while nothing is made."""

    def close(self) -> None:
        """End every run, and release everything. A later `begin` starts anew; the runs have no outcome."""
