"""Which run goes to which host."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import msgspec
import pytest

from fluxdrop.cluster import dispatcher as module
from fluxdrop.cluster.dispatcher import Dispatcher, Host, Slot, SlotState, Waiting
from fluxdrop.cluster.messages import HostFacts, Join, RunOrder
from fluxdrop.cluster.pipeline_needs import Embedded, RunNeeds
from fluxdrop.config import PipelineTable
from fluxdrop.generate.messages import Load
from fluxdrop.generate.pipeline_process import Limits

LIMITS = Limits(1.0, 1.0, 1.0, 1)


@dataclass
class Cluster:
    """A dispatcher with hosts; *most* and *alike* are as in the settings."""

    most: int = 0
    alike: bool = False
    runs: int = 0
    dispatcher: Dispatcher = field(init=False)

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher(
            Join(
                address="auto",
                most=self.most,
                hosts="alike" if self.alike else "any",
                host_class="",
                idle_seconds=600,
                pipelines={},
                default_pipeline="first",
            )
        )

    def add(
        self,
        name: str,
        gpus: int = 1,
        *,
        host_class: str = "a",
        missing: dict[str, str] | None = None,
        problem: str = "",
    ) -> Host:
        """Another host that has said what it is."""
        host = Host(name, name, gpus, problem=problem)
        host.facts = HostFacts(version="1", host_class=host_class, missing=missing or {})
        host.slots = [Slot(host) for _ in range(gpus or 1)]
        self.dispatcher.hosts[name] = host
        return host

    def ask(self, *pipelines: str, alone: bool = False) -> None:
        """Another run waits, with each of *pipelines*."""
        for pipeline in pipelines:
            self.runs += 1
            order = RunOrder(
                id=str(self.runs),
                load=Load(name=pipeline, table=PipelineTable(source=pipeline)),
                pictures=[],
                loras=[],
                limits=LIMITS,
                alone=alone,
                needs=RunNeeds(source=Embedded(pipeline)),
            )
            self.dispatcher.waiting.append(Waiting(self.runs, order, time.monotonic()))

    def start(self) -> list[str]:
        """The hosts on which actors are started for what waits; they are there at once."""
        slots = self.dispatcher.to_start()
        for slot in slots:
            slot.become(SlotState.IDLE)
        return [slot.host.name for slot in slots]

    def assign(self) -> list[tuple[int, str]]:
        """The runs that are given to hosts, with these."""
        return [(run.number, slot.host.name) for run, slot in self.dispatcher.assign()]


def test_one_run_for_each_slot() -> None:
    """Actors are started only for what waits, first on the hosts with the least to do; each gets one run, and the
    others wait."""
    cluster = Cluster()
    cluster.add("one", gpus=2)
    cluster.add("two")
    assert [] == cluster.start()
    assert 3 == cluster.dispatcher.capacity()

    cluster.ask("first", "first", "first", "first")

    assert ["one", "two", "one"] == cluster.start()
    assert [(1, "one"), (2, "one"), (3, "two")] == cluster.assign()
    assert [] == cluster.start()
    assert [4] == [run.number for run in cluster.dispatcher.waiting]


def test_loaded_pipeline() -> None:
    """An idle actor that has a run's pipeline loaded is preferred."""
    cluster = Cluster()
    one, two = cluster.add("one"), cluster.add("two")
    cluster.ask("first", "second")
    cluster.start()
    cluster.assign()
    for host in (one, two):
        host.slots[0].run = None
        host.slots[0].become(SlotState.IDLE)

    cluster.ask("second", "first")

    assert [(3, "two"), (4, "one")] == cluster.assign()


def test_missing_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run waits for a host that has its pipeline, while others go on; if no host has it, it is refused after a while,
    with what each host says."""
    cluster = Cluster()
    cluster.add("one", missing={"second": "It is not there."})
    cluster.ask("second", "first")

    assert ["one"] == cluster.start()
    assert [(2, "one")] == cluster.assign()
    assert [] == cluster.dispatcher.hopeless()
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.0)
    ((run, reasons),) = cluster.dispatcher.hopeless()
    assert 1 == run.number
    assert "one: It is not there." == reasons
    assert not cluster.dispatcher.waiting


def test_unfit_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that was twice unfit for a run does not get it again, though it says that it has the pipeline; a run for
    which all hosts were is refused, with their reasons."""
    cluster = Cluster()
    one, two = cluster.add("one"), cluster.add("two")
    cluster.ask("first", "first")
    cluster.start()
    cluster.assign()
    (run, _other) = (one.slots[0].run, two.slots[0].run)
    assert run is not None
    for host in (one, two):
        host.slots[0].run = None
        host.slots[0].become(SlotState.IDLE)
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.0)

    for name in ("one", "one", "two"):
        run = run.with_unfit(name, f"The LoRA is too large for {name}.")
    cluster.dispatcher.waiting.append(run)
    assert [] == cluster.dispatcher.hopeless()
    assert [(1, "two")] == cluster.assign()
    cluster.dispatcher.waiting.append(run.with_unfit("two", "Its cache is full."))
    one.slots[0].become(SlotState.IDLE)
    two.slots[0].become(SlotState.IDLE)

    assert [] == cluster.assign()
    ((_run, reasons),) = cluster.dispatcher.hopeless()
    assert "one: The LoRA is too large for one. two: Its cache is full." == reasons


def test_most() -> None:
    """A root with `cluster_most` has no more actors than that; an idle one ends where it stands in the way."""
    cluster = Cluster(most=1)
    cluster.add("one", missing={"second": "It is not there."})
    two = cluster.add("two")
    two.slots[0].not_before = time.monotonic() + 1000
    assert 1 == cluster.dispatcher.capacity()
    cluster.ask("first")
    assert ["one"] == cluster.start()
    two.slots[0].not_before = 0
    cluster.assign()
    one = cluster.dispatcher.hosts["one"].slots[0]
    one.run = None
    one.become(SlotState.IDLE)

    cluster.ask("second")
    unread = cluster.dispatcher.waiting[0]
    unread = unread._replace(order=msgspec.structs.replace(unread.order, needs=None))
    cluster.dispatcher.waiting[0], known = unread, cluster.dispatcher.waiting[0]

    assert [] == cluster.assign()
    assert [] == cluster.start()
    assert [] == cluster.dispatcher.to_stop()
    cluster.dispatcher.waiting[0] = known
    assert [] == cluster.assign()
    assert [one] == cluster.dispatcher.to_stop()


def test_alike() -> None:
    """With `hosts = "alike"`, all runs go to the class with the most slots, and the others say why they get none; no
    host is used before all have said what they are."""
    cluster = Cluster(alike=True)
    other = cluster.add("one", host_class="b")
    cluster.add("two")
    cluster.add("three")
    late = cluster.add("late")
    late.facts = None
    cluster.ask("first", "first", "first")
    assert [] == cluster.assign()
    assert [] == cluster.start()

    late.facts = HostFacts(version="1", host_class="b", problem="Its disk is full.")
    cluster.assign()

    assert "a" == cluster.dispatcher.host_class
    assert ["two", "three"] == cluster.start()
    assert 'hosts = "alike"' in cluster.dispatcher.why_unused(other)
    assert "Its disk is full." == cluster.dispatcher.why_unused(late)


def test_alone() -> None:
    """A run that has to be alone waits until a host is free of others, which go nowhere meanwhile, and then keeps them
    off that host."""
    cluster = Cluster()
    host = cluster.add("one", gpus=2)
    cluster.ask("first", "first")
    cluster.start()
    cluster.assign()
    first, second = host.slots
    second.run = None
    second.become(SlotState.IDLE)
    cluster.ask("first", alone=True)
    cluster.ask("first")
    assert [] == cluster.assign()

    first.run = None
    first.become(SlotState.IDLE)

    assert [(3, "one")] == cluster.assign()
    assert 1 == cluster.dispatcher.capacity()


def test_hosts_without_gpu() -> None:
    """Hosts without a GPU are used only where no host has one."""
    cluster = Cluster()
    slow = cluster.add("slow", gpus=0)
    assert [slow] == cluster.dispatcher.usable()

    fast = cluster.add("fast")

    assert [fast] == cluster.dispatcher.usable()
    assert "It has no GPU, and other hosts have one." == cluster.dispatcher.why_unused(slow)


def test_gpu_of_another_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """An actor that waits for a GPU that another root uses does not count as room, which is told, and is given up when
    nothing waits for it any more."""
    cluster = Cluster()
    host = cluster.add("one")
    cluster.ask("first")
    (slot,) = cluster.dispatcher.to_start()
    assert 1 == cluster.dispatcher.capacity()
    assert "" == cluster.dispatcher.why_unused(host)

    monkeypatch.setattr(module, "_STARTING_SECONDS", 0.0)

    assert 0 == cluster.dispatcher.capacity()
    assert "Its GPUs are in use, perhaps by another root." == cluster.dispatcher.why_unused(host)
    assert [] == cluster.dispatcher.to_stop()
    cluster.dispatcher.waiting.clear()
    assert [slot] == cluster.dispatcher.to_stop()


def test_nothing_can_be_started() -> None:
    """A host on which no actor can be started says why, and is tried again after the pause."""
    cluster = Cluster()
    host = cluster.add("one")
    host.slots[0].trouble = "Ray failed"
    host.slots[0].not_before = time.monotonic() + 1000
    assert "Nothing can be started there: Ray failed." == cluster.dispatcher.why_unused(host)

    host.slots[0].not_before = 0

    assert [host] == cluster.dispatcher.usable()
