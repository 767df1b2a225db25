"""Which host makes again what a host of some class made before."""

from __future__ import annotations

import time

from fluxdrop.cluster.dispatcher import Dispatcher, Host, Slot, SlotState, Waiting
from fluxdrop.cluster.messages import HostFacts, Join, RunOrder
from fluxdrop.cluster.pipeline_needs import Embedded, RunNeeds
from fluxdrop.config import PipelineTable, Settings
from fluxdrop.generate.messages import Load
from fluxdrop.generate.pipeline_process import limits_of

PIPELINE = "shapes-diffusion"


def dispatcher(**classes: str) -> Dispatcher:
    """One with idle hosts of these classes, by name."""
    join = Join(
        address="auto", most=0, hosts="any", host_class="", idle_seconds=60.0, pipelines={},
        default_pipeline=PIPELINE,
    )  # fmt: skip
    made = Dispatcher(join)
    for name, host_class in classes.items():
        host = Host(name, name, 0, HostFacts(version="1", host_class=host_class))
        host.slots = [Slot(host, SlotState.IDLE)]
        made.hosts[name] = host
    return made


def waiting(number: int, host_class: str = "") -> Waiting:
    """A run that prefers hosts of *host_class*."""
    order = RunOrder(
        id=str(number),
        load=Load(name=PIPELINE, table=PipelineTable(source=PIPELINE)),
        pictures=[],
        loras=[],
        limits=limits_of(Settings()),
        host_class=host_class,
        needs=RunNeeds(source=Embedded(PIPELINE)),
    )
    return Waiting(number, order, time.monotonic())


def assigned(made: Dispatcher) -> dict[int, str]:
    """Which run goes to which host now, by their numbers and names."""
    return {run.number: slot.host.name for run, slot in made.assign()}


def test_preferred_class() -> None:
    """A run that another class made before waits for a host of it, however many others idle, and they get what comes
    after it; where there is none of the class, any host makes it."""
    made = dispatcher(a="A100", h="H100")
    made.waiting.extend([waiting(1, "H100"), waiting(2, "H100"), waiting(3)])
    both = assigned(made)
    left = [one.number for one in made.waiting]
    del made.hosts["h"]
    made.hosts["a"].slots[0].become(SlotState.IDLE)

    assert {1: "h", 3: "a"} == both
    assert [2] == left
    assert {2: "a"} == assigned(made)


def test_preferred_class_in_use_by_another_root() -> None:
    """A run does not wait for the GPU of the only host of its class, as another root may use that for days."""
    made = dispatcher(a="A100", h="H100")
    (slot,) = made.hosts["h"].slots
    slot.state, slot.since = SlotState.STARTING, time.monotonic() - 60
    made.waiting.append(waiting(1, "H100"))

    assert {1: "a"} == assigned(made)
