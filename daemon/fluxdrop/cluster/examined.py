"""What `fluxdrop doctor --cluster` asks of the process that examines a cluster, and what it is told."""

from __future__ import annotations

import msgspec

from fluxdrop.cluster.messages import HostFacts
from fluxdrop.config import PipelineTable


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Which cluster is to be examined, for which pipelines."""

    address: str
    pipelines: dict[str, PipelineTable]


class PipelineReport(msgspec.Struct, frozen=True, kw_only=True):
    """Where a host has a pipeline of the root."""

    digest: str = ""
    """What it consists of, in hex; for one on the hub, the repository and the commit."""
    place: str = ""
    """Where it is: a path, ``embedded``, ``station`` if it comes from there, or ``hub``; empty if it cannot be had."""
    size: int = 0
    """The bytes that would come from the station."""
    problem: str = ""
    """Why it cannot be had."""


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out on a host."""

    versions: dict[str, str]
    """Of Python and of the packages that are installed."""
    disk: str
    """The folder of the cache."""
    free_bytes: int
    token: bool
    """Whether its Ray asks for a token."""
    tls: bool
    pipelines: dict[str, PipelineReport]
    """By name."""
    problem: str = ""
    """Why its own settings or its cache cannot be used."""


class PictureReport(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that a host made, always of the same values."""

    sha256: str = ""
    """Of its PNG, in hex; empty if it could not be made."""
    seconds: float = 0.0
    """With loading the pipeline."""
    problem: str = ""


class ExaminedHost(msgspec.Struct, kw_only=True):
    """What is known of a host; what comes after a problem is not."""

    name: str
    address: str
    gpus: int
    problem: str = ""
    """Why it could not be examined further."""
    facts: HostFacts | None = None
    report: HostReport | None = None
    clock_seconds: float | None = None
    """How far its clock is ahead of the station's; negative if it is behind."""
    picture: PictureReport | None = None
    """None if its GPUs are in use."""


class Examination(msgspec.Struct, kw_only=True):
    """What was found out."""

    message: str = ""
    """Why the cluster cannot be used."""
    hint: str = ""
    hosts: list[ExaminedHost] = []
    digests: dict[str, str] = {}
    """The station's pipelines, by name."""
    unreadable: dict[str, str] = {}
    """Why the station itself cannot use a pipeline, by name."""
