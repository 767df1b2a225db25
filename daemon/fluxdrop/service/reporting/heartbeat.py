"""The heartbeat file, in which the running daemon describes itself for `status` to read."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from fluxdrop.files import durable
from fluxdrop.files.transient import is_full
from fluxdrop.generate.hands import HostStatus
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.service.supervision.liveness import Liveness

_MAX_INTERVAL_SECONDS = 10.0
_MIN_INTERVAL_SECONDS = 0.5
# An existing file has at least one block on the disk, however small it is.
_BLOCK_BYTES = 4096


class Current(msgspec.Struct, frozen=True, kw_only=True):
    """The pictures that are being generated."""

    job_id: str
    """The id of the first picture's job."""
    file: str
    """The first picture's prompt file."""
    pictures: int
    """How many pictures this run of the pipeline makes."""
    step: int = 0
    steps: int | None = None
    """The number of steps; None until the pipeline is loaded."""
    steps_per_second: float | None = None
    """None until a second step is done."""
    seconds_left: float | None = None
    """None until a second step is done."""


class WarmModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is loaded beside the one in use, or is being opened."""

    name: str
    """Its name, or its folder, as the settings or a replay name it."""
    model: str
    engine: EngineInfo | None
    """None until it is open."""
    folders: list[str]
    """The configured folders of the inbox that it answers for; none for a replay's model."""
    waiting: int
    """How many pictures wait for it or are in hand."""
    megabytes: int
    """The memory of its process; inside the daemon, about that of its weights."""


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of `.fluxdrop/daemon.json`."""

    pid: int
    version: str
    started: str
    model: str
    engine: EngineInfo | None
    generator_pid: int | None
    warm: list[WarmModelStatus] = []
    watch: str
    """How files are found: ``events``, ``polling`` or ``scans only``."""
    filesystem: str
    inbox: int
    stages: dict[str, int]
    """How many jobs wait or are in hand, by stage."""
    current: Current | None
    """The first of `currents`."""
    currents: list[Current] = []
    """Every run of a pipeline in progress, in the order in which they began."""
    hosts: list[HostStatus] = []
    """The hosts of the cluster; none without one."""
    degraded: list[str]
    """Why the daemon is degraded, one sentence each: outages, parts that are stuck, files that are skipped."""
    irregular: list[str] = []
    """Which symlinks and other irregular files are in the inbox, one sentence each. They delay no job."""
    defects: dict[str, int] = {}
    """How many times each defect of fluxdrop or of a library has ended a job or other work."""
    progress: dict[str, str] = {}
    """When the main loop (as ``scan``) and each stage last made progress, RFC 3339."""


def summary(status: DaemonStatus) -> str:
    """Return *status* as one line of text."""
    engine = status.engine
    runs = (
        f"{status.model} on {engine.engine} {engine.version} ({engine.backend})" if engine else ""
    )
    generating = f"generating {status.current.file}" if status.current else ""
    if len(status.currents) > 1:
        generating += f" and {len(status.currents) - 1} more"
    counts = f"{status.inbox} in the inbox, {sum(status.stages.values())} in hand"
    return "; ".join(filter(None, (runs, counts, generating, *status.degraded)))


class Heartbeat:
    """Writes the daemon's status to a file: a changed one soon, an unchanged one every ten seconds.

    A status that differs from the last one only in its times counts as unchanged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: DaemonStatus | None = None
        self._written = 0.0

    def write(
        self, status: DaemonStatus, parts: Mapping[str, Liveness] = MappingProxyType({})
    ) -> None:
        """Write *status* if it is due.

        Args:
            status: What to write.
            parts: The parts whose times of last progress are added, by name.

        Raises:
            OSError: The file cannot be written.
        """
        age = time.monotonic() - self._written
        if age < _MIN_INTERVAL_SECONDS or (status == self._last and age < _MAX_INTERVAL_SECONDS):
            return
        progress = {name: liveness.last for name, liveness in parts.items()}
        data = msgspec.json.encode(msgspec.structs.replace(status, progress=progress))
        try:
            durable.write(self._path, data, sync=False)
        except OSError as error:
            if not is_full(error):
                raise
            self._overwrite(data)
        self._last = status
        self._written = time.monotonic()

    def _overwrite(self, data: bytes) -> None:
        # A full disk takes no new file, and that is when `status` is needed most. The blocks that the
        # file has can be overwritten; a reader that sees half of it reads again.
        with os.fdopen(durable.open_own(self._path, os.O_RDWR), "r+b") as file:
            room = max(os.fstat(file.fileno()).st_size, _BLOCK_BYTES)
            if len(data) > room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            file.write(data)
            file.truncate()


def read(path: Path) -> DaemonStatus | None:
    """Return the last status at *path*; None if there is none, or none that this version understands."""
    try:
        return msgspec.json.decode(durable.read_own(path), type=DaemonStatus)
    except (OSError, msgspec.DecodeError):
        return None
