"""What the running daemon says of itself, for ``status`` to read."""

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
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.service.supervision.liveness import Liveness

_MAX_INTERVAL_SECONDS = 10.0
_MIN_INTERVAL_SECONDS = 0.5
# A file that is there has at least one block, however little is in it.
_BLOCK_BYTES = 4096


class Current(msgspec.Struct, frozen=True, kw_only=True):
    """The pictures being generated: the first one's *job_id* and *file*, and how many *pictures*
    the run makes. *steps* is None until the pipeline is loaded; the other two until a second step
    is done.
    """

    job_id: str
    file: str
    pictures: int
    step: int = 0
    steps: int | None = None
    steps_per_second: float | None = None
    seconds_left: float | None = None


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """.fluxdrop/daemon.json."""

    pid: int
    version: str
    started: str
    model: str
    engine: EngineInfo | None
    generator_pid: int | None
    watch: str
    """``events``, ``polling`` or ``scans only``."""
    filesystem: str
    inbox: int
    stages: dict[str, int]
    """How many jobs wait or are in hand, a stage."""
    current: Current | None
    trouble: list[str]
    """What holds up the daemon, a sentence each; see `fluxdrop.outage`."""
    defects: dict[str, int] = {}
    """How many times each defect of fluxdrop or of a library has ended a job or another piece of work."""
    progress: dict[str, str] = {}
    """When the scan loop and each stage last moved on, RFC 3339."""


def summary(beat: Beat) -> str:
    """*beat* in one line."""
    engine = beat.engine
    runs = f"{beat.model} on {engine.engine} {engine.version} ({engine.backend})" if engine else ""
    generating = f"generating {beat.current.file}" if beat.current else ""
    counts = f"{beat.inbox} in the inbox, {sum(beat.stages.values())} in hand"
    return "; ".join(filter(None, (runs, counts, generating, *beat.trouble)))


class Heartbeat:
    """Writes beats to *path* when they differ in more than their times, and now and then when they
    do not.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: Beat | None = None
        self._written = 0.0

    def write(self, beat: Beat, pulses: Mapping[str, Liveness] = MappingProxyType({})) -> None:
        """Write *beat* with the times of *pulses*, if it is time. Raises OSError."""
        age = time.monotonic() - self._written
        if age < _MIN_INTERVAL_SECONDS or (beat == self._last and age < _MAX_INTERVAL_SECONDS):
            return
        progress = {name: pulse.last for name, pulse in pulses.items()}
        data = msgspec.json.encode(msgspec.structs.replace(beat, progress=progress))
        try:
            durable.write(self._path, data, sync=False)
        except OSError as error:
            if not is_full(error):
                raise
            self._overwrite(data)
        self._last = beat
        self._written = time.monotonic()

    def _overwrite(self, data: bytes) -> None:
        # A full disk takes no new file, and just then `status` should have news. What the file has
        # already can be written over; a reader that comes in between reads again.
        with os.fdopen(durable.open_own(self._path, os.O_RDWR), "r+b") as file:
            room = max(os.fstat(file.fileno()).st_size, _BLOCK_BYTES)
            if len(data) > room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            file.write(data)
            file.truncate()


def read(path: Path) -> Beat | None:
    """The last beat at *path*; None when there is none, or none that this version understands."""
    try:
        return msgspec.json.decode(durable.read_own(path), type=Beat)
    except (OSError, msgspec.DecodeError):
        return None
