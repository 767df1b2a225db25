"""The payloads between the daemon, its broker, and the hosts.

=========  ===================  ==============================================================
frame      from                 payload
=========  ===================  ==============================================================
HELLO      broker               facts: ``protocol``, ``pid``
JOIN       daemon, once         `Join`
CLUSTER    broker               `ClusterState`, at each change and at least every two seconds
RUN        daemon               `RunOrder`
SENT       broker               `Sent`: the run is with a host
PROGRESS   broker               `fluxdrop.generate.messages.StepProgress`
CANCEL     daemon               empty; the outcome still follows
OUTCOME    broker               `pack_outcome`; ends the run
FAILURE    broker, request 0    facts: ``kind``, ``message``, ``hint``: why the broker ends
STOP       daemon               empty; no answer
=========  ===================  ==============================================================

All but those that name neither run nor outcome have the run's number as the request's id. Payloads are JSON. From
the hosts come `HostFacts`, `Pulse` and outcomes, as bytes: nothing that they send is unpickled into an object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import msgspec

from fluxdrop.cluster.pipeline_needs import RunNeeds
from fluxdrop.config import PipelineTable
from fluxdrop.generate.hands import HostStatus
from fluxdrop.generate.messages import Load, PictureOrder
from fluxdrop.generate.pipeline_process import Limits
from fluxdrop.printable import printable
from fluxdrop.processes.headed import pack_head, unpack_head

_MAX_SHOWN = 400


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """Join a cluster."""

    address: str
    """``auto``, or HOST:PORT of the head."""
    most: int
    """The most runs at a time; 0 for no limit."""
    hosts: Literal["any", "alike"]
    host_class: str
    """The class that runs were made on before, for ``alike``; empty if none were."""
    idle_seconds: float
    """How long an idle host's GPU is kept."""
    pipelines: Mapping[str, PipelineTable]
    """The pipelines of the root, by name."""
    default_pipeline: str


class ClusterState(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster as the broker sees it."""

    outage: str | None
    """Why nothing can be begun; None if there is no reason."""
    slots: int
    """How many runs the hosts can make at a time, at this moment."""
    host_class: str
    """The class to which the runs are kept; empty if they are not, or before the first one."""
    hosts: list[HostStatus]
    """Without their jobs."""


class RunOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Make pictures, in one run of a pipeline.

    A picture's ``cancelled`` is not used here.
    """

    id: str
    load: Load
    pictures: list[PictureOrder]
    loras: list[tuple[str, float]]
    """Files with their weights."""
    limits: Limits
    alone: bool = False
    """Whether no other run of this root may be on the same host meanwhile."""
    host_class: str = ""
    """The class of hosts that is preferred, if there is one of it."""
    needs: RunNeeds | None = None
    """What the host has to have. The broker adds it."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A run is with a host."""

    host: str
    host_class: str


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a host says of itself."""

    version: str
    """Its fluxdrop."""
    gpu: str = ""
    """The name of its GPUs, or ``cpu``."""
    host_class: str = ""
    """On hosts of one class, the same parameters make the same bytes."""
    problem: str = ""
    """Why it cannot make pictures, as a sentence; empty if it can."""
    missing: dict[str, str] = {}
    """Why it cannot have what a pipeline needs, by the pipeline's name."""


def decoded_facts(answer: bytes) -> HostFacts:
    """Return the `HostFacts` in *answer*, with texts that are printable and not long: another machine wrote them.

    Raises:
        msgspec.DecodeError: They are malformed.
    """
    facts = msgspec.json.decode(answer, type=HostFacts)
    return HostFacts(
        version=shown(facts.version),
        gpu=shown(facts.gpu),
        host_class=shown(facts.host_class),
        problem=shown(facts.problem),
        missing={name: shown(reason) for name, reason in facts.missing.items()},
    )


def shown(text: str) -> str:
    """Return *text*, which another machine wrote, as it may be shown to people."""
    return printable(text[:_MAX_SHOWN])


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a ping."""

    run: str = ""
    """The run in progress; empty if there is none."""
    step: int = 0
    steps: int = 0
    problem: str = ""
    """As in `HostFacts`."""


class MadeOutcome(msgspec.Struct, frozen=True, kw_only=True, tag="made"):
    """The pictures of a run were made. They follow, as in an IMAGE frame."""

    run: str
    sha256: list[str]
    """The digest of each PNG file, in hex."""


class RefusedOutcome(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The run cannot be done."""

    run: str
    message: str
    hint: str
    kind: str


class DiedOutcome(msgspec.Struct, frozen=True, kw_only=True, tag="died"):
    """The process that made the pictures died on the host; *tail* is the end of its output."""

    run: str
    message: str
    tail: str


class LostOutcome(msgspec.Struct, frozen=True, kw_only=True, tag="lost"):
    """The host was lost, or turned out to be of no use."""

    run: str
    host: str
    reason: str
    is_unfit: bool = False
    """Whether the host lives, and only cannot have what the run needs. The broker gives it to another one."""


RunOutcome = MadeOutcome | RefusedOutcome | DiedOutcome | LostOutcome


def pack_outcome(outcome: RunOutcome, images: bytes = b"") -> bytes:
    """Return the payload of an OUTCOME frame; *images* is what `fluxdrop.generate.messages.pack_images` made."""
    return pack_head(outcome) + images


def unpack_outcome(payload: bytes | bytearray) -> tuple[RunOutcome, bytes]:
    """Return the outcome in *payload* and the bytes of its images.

    Raises:
        WireError: The payload is malformed.
    """
    kind = cast("type[RunOutcome]", RunOutcome)
    outcome, start = unpack_head(payload, kind, "an outcome")
    return outcome, bytes(payload[start:])
