"""Which run goes to which host: decided here, without Ray, from what is known of the hosts."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import msgspec

from fluxdrop.cluster.messages import HostFacts, Join, RunOrder
from fluxdrop.cluster.pipeline_needs import RunNeeds

_STARTING_SECONDS = 10.0
"""After this, an actor that has not started waits for a GPU that another root uses."""
_MAX_REFUSALS = 2
"""How often a run is given to a host that is unfit for it: what was in the way may be gone, such as a full disk."""
_PATIENCE_SECONDS = 60.0
"""How long a run waits for the first host that has its pipeline."""


class SlotState(Enum):
    """What a slot does. One that is LOST was of a host that is gone; it is never used again."""

    EMPTY = "no actor"
    STARTING = "its actor starts"
    IDLE = "idle"
    BUSY = "busy"
    LOST = "lost"


class Refusals(NamedTuple):
    """How often a host was unfit for a run, and why it was the last time."""

    times: int
    reason: str


class Waiting(NamedTuple):
    """A run that is not with a host yet."""

    number: int
    order: RunOrder
    """Not given to a host before it has its needs."""
    since: float
    unfit: Mapping[str, Refusals] = {}
    """The hosts that turned out to be unable to have what it needs, by id."""

    def with_unfit(self, host: str, reason: str) -> Waiting:
        """Return the run that waits from now on, as *host* was unfit for *reason*."""
        times = self.unfit[host].times if host in self.unfit else 0
        return self._replace(
            since=time.monotonic(), unfit={**self.unfit, host: Refusals(times + 1, reason)}
        )

    def is_refused_by(self, host: Host) -> bool:
        """Return whether *host* does not get it again."""
        return host.id in self.unfit and self.unfit[host.id].times >= _MAX_REFUSALS


@dataclass(eq=False)
class Slot:
    """A place for one run at a time: a GPU, or a host without any."""

    host: Host
    state: SlotState = SlotState.EMPTY
    since: float = 0.0
    """When the state began (time.monotonic)."""
    run: Waiting | None = None
    """What it makes while BUSY."""
    pipeline: str = ""
    """The one that it has loaded, if any."""
    not_before: float = 0.0
    """When its next actor may be started."""
    trouble: str = ""
    """Why its last actor could not be started; empty if it could."""

    def become(self, state: SlotState) -> None:
        """Enter *state*."""
        self.state, self.since = state, time.monotonic()


@dataclass(eq=False)
class Host:
    """A host. After it was away, it is another one."""

    id: str
    name: str
    gpus: int
    facts: HostFacts | None = None
    problem: str = ""
    """Why it is not used, beside what its facts say."""
    slots: list[Slot] = field(default_factory=list)

    @property
    def unfit(self) -> str:
        """Why it cannot be used, as a sentence; empty if it can."""
        if self.problem or self.facts is None:
            return self.problem or "It has just joined, and has not answered yet."
        now = time.monotonic()
        if all(slot.trouble and slot.not_before > now for slot in self.slots):
            return f"Nothing can be started there: {self.slots[0].trouble}."
        return self.facts.problem

    def missing(self, pipeline: str) -> str:
        """Return why it cannot run *pipeline*; empty if it can."""
        return self.facts.missing.get(pipeline, "") if self.facts else ""


class Dispatcher:
    """Gives runs to slots. One thread uses it."""

    def __init__(self, join: Join) -> None:
        self._join = join
        self.hosts: dict[str, Host] = {}
        """The hosts that live, by id."""
        self.waiting: deque[Waiting] = deque()
        """Runs without a host, the oldest first."""
        self.host_class = join.host_class

    def usable(self) -> list[Host]:
        """Return the hosts to which runs may go."""
        fit = [host for host in self.hosts.values() if not host.unfit]
        if any(host.gpus for host in fit):
            fit = [host for host in fit if host.gpus]
        if self._join.hosts == "alike" and self.host_class:
            fit = [host for host in fit if host.facts and host.facts.host_class == self.host_class]
        return fit

    def why_unused(self, host: Host) -> str:
        """Return why no run goes to *host*, as a sentence; empty if they do."""
        if host.unfit:
            return host.unfit
        if host in self.usable():
            now = time.monotonic()
            is_taken = bool(host.gpus) and all(_waits_for_gpu(slot, now) for slot in host.slots)
            return "Its GPUs are in use, perhaps by another root." if is_taken else ""
        if not host.gpus and any(other.gpus for other in self.hosts.values()):
            return "It has no GPU, and other hosts have one."
        return f'It is of another class than the pictures of this root ({self.host_class}), and hosts = "alike".'

    def capacity(self) -> int:
        """Return how many runs can be made at a time, at this moment."""
        now = time.monotonic()
        usable = [
            slot
            for host in self.usable()
            for slot in host.slots
            if not _is_blocked(slot) and not _waits_for_gpu(slot, now) and slot.not_before <= now
        ]
        return min(len(usable), self._join.most or len(usable))

    def assign(self) -> Iterator[tuple[Waiting, Slot]]:
        """Give waiting runs to idle slots, which become BUSY; yield each of them."""
        self._choose_class()
        for waiting in list(self.waiting):
            slot = self._slot_for(waiting) if waiting.order.needs else None
            if slot is not None:
                self.waiting.remove(waiting)
                slot.run, slot.pipeline = waiting, waiting.order.load.name
                slot.become(SlotState.BUSY)
                yield waiting, slot
            elif waiting.order.alone:
                # The others go first nowhere, so that a host becomes free of them.
                return

    def to_start(self) -> list[Slot]:
        """Return the slots that need an actor for what waits; they are STARTING from now on."""
        now = time.monotonic()
        chosen: list[Slot] = []
        if self._join.hosts == "alike" and not self.host_class:
            return chosen
        starting = sum(
            slot.state is SlotState.STARTING and not _waits_for_gpu(slot, now)
            for slot in self._slots()
        )
        for waiting in list(self.waiting)[starting:]:
            if self._join.most and self._actors() >= self._join.most:
                break
            empty = [
                slot
                for host in self._hosts_for(waiting)
                for slot in host.slots
                if slot.state is SlotState.EMPTY
                and slot.not_before <= now
                and not _is_blocked(slot)
            ]
            if empty:
                # The host with the least to do, so that two runs do not share one while another idles.
                slot = min(empty, key=lambda one: _actors_of(one.host))
                slot.become(SlotState.STARTING)
                chosen.append(slot)
        return chosen

    def to_stop(self) -> list[Slot]:
        """Return the slots whose actors are to end, as they were idle for long or others wait for their place."""
        now = time.monotonic()
        usable = self.usable()
        is_full = bool(self._join.most) and self._actors() >= self._join.most
        has_waiting = any(waiting.order.needs for waiting in self.waiting)

        def is_superfluous(slot: Slot) -> bool:
            if slot.state is SlotState.STARTING:
                # It would take the GPU from another root when that lets go.
                return _waits_for_gpu(slot, now) and not self.waiting
            return slot.state is SlotState.IDLE and (
                now - slot.since > self._join.idle_seconds
                or slot.host not in usable
                # What an idle slot could make has been given to it already.
                or (is_full and has_waiting)
            )

        return [slot for slot in self._slots() if is_superfluous(slot)]

    def hopeless(self) -> list[tuple[Waiting, str]]:
        """Remove and return the runs whose pipeline no host can have, each with what the hosts say of it."""
        now = time.monotonic()
        found = []
        for waiting in list(self.waiting):
            name = waiting.order.load.name
            usable = self.usable()
            reasons = {
                host.name: waiting.unfit[host.id].reason
                if waiting.is_refused_by(host)
                else host.missing(name)
                for host in self.hosts.values()
                if waiting.is_refused_by(host) or host in usable
            }
            if now - waiting.since > _PATIENCE_SECONDS and reasons and all(reasons.values()):
                self.waiting.remove(waiting)
                told = " ".join(f"{host}: {reason}" for host, reason in reasons.items())
                found.append((waiting, told))
        return found

    def add_needs(self, number: int, needs: RunNeeds) -> None:
        """Add the *needs* of the waiting run *number*, unless it was cancelled."""
        for place, waiting in enumerate(self.waiting):
            if waiting.number == number:
                order = msgspec.structs.replace(waiting.order, needs=needs)
                self.waiting[place] = waiting._replace(order=order)

    def _slot_for(self, waiting: Waiting) -> Slot | None:
        """Return the idle slot that suits *waiting* best; None if there is none."""
        name = waiting.order.load.name
        fit = [
            slot
            for host in self._hosts_for(waiting)
            for slot in host.slots
            if slot.state is SlotState.IDLE and not _is_blocked(slot)
        ]
        if waiting.order.alone:
            fit = [slot for slot in fit if not _is_busy(slot.host)]
        return min(fit, key=lambda slot: slot.pipeline != name, default=None)

    def _hosts_for(self, waiting: Waiting) -> list[Host]:
        """Return the hosts that can make *waiting*: only those of the class that it prefers, if there are any.

        Those whose GPUs another root uses do not count as such.
        """
        order = waiting.order
        fit = [
            host
            for host in self.usable()
            if not host.missing(order.load.name) and not waiting.is_refused_by(host)
        ]
        now = time.monotonic()
        alike = [
            host
            for host in fit
            if host.facts and host.facts.host_class == order.host_class
            if not all(_waits_for_gpu(slot, now) for slot in host.slots)
        ]
        return alike or fit

    def _choose_class(self) -> None:
        """Choose the class of the hosts to which all runs will go: the one with the most slots."""
        if self._join.hosts != "alike" or self.host_class or not self.waiting:
            return
        usable = self.usable()
        if usable and all(host.facts or host.problem for host in self.hosts.values()):
            classes: Counter[str] = Counter()
            for host in usable:
                if host.facts:
                    classes[host.facts.host_class] += len(host.slots)
            self.host_class = classes.most_common(1)[0][0]

    def _slots(self) -> list[Slot]:
        return [slot for host in self.hosts.values() for slot in host.slots]

    def _actors(self) -> int:
        return sum(_actors_of(host) for host in self.hosts.values())


def _actors_of(host: Host) -> int:
    return sum(slot.state not in (SlotState.EMPTY, SlotState.LOST) for slot in host.slots)


def _is_busy(host: Host) -> bool:
    return any(slot.state is SlotState.BUSY for slot in host.slots)


def _is_blocked(slot: Slot) -> bool:
    """Return whether another slot of the same host makes a run that has to be alone."""
    return any(
        other.run is not None and other.run.order.alone
        for other in slot.host.slots
        if other is not slot
    )


def _waits_for_gpu(slot: Slot, now: float) -> bool:
    return slot.state is SlotState.STARTING and now - slot.since > _STARTING_SECONDS
