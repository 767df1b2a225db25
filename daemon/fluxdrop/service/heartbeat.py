"""What the running daemon says of itself, for ``status`` to read."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from fluxdrop import durable
from fluxdrop.predict.engine import EngineInfo

_LONGEST_SILENCE = 10.0
_SHORTEST_PAUSE = 0.5


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


def summary(beat: Beat) -> str:
    """*beat* in one line."""
    engine = beat.engine
    runs = f"{beat.model} on {engine.engine} {engine.version} ({engine.backend})" if engine else ""
    generating = f"generating {beat.current.file}" if beat.current else ""
    counts = f"{beat.inbox} in the inbox, {sum(beat.stages.values())} in hand"
    return "; ".join(filter(None, (runs, counts, generating, *beat.trouble)))


class Heartbeat:
    """Writes beats to *path* when they differ, and now and then when they do not."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: Beat | None = None
        self._written = 0.0

    def write(self, beat: Beat) -> None:
        """Write *beat* if it is time."""
        silence = time.monotonic() - self._written
        if silence < _SHORTEST_PAUSE or (beat == self._last and silence < _LONGEST_SILENCE):
            return
        durable.write(self._path, msgspec.json.encode(beat), sync=False)
        self._last = beat
        self._written = time.monotonic()

    def remove(self) -> None:
        """The daemon ends."""
        self._path.unlink(missing_ok=True)


def read(path: Path) -> Beat | None:
    """The last beat at *path*; None when there is none, or none that this version understands."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Beat)
    except (OSError, msgspec.DecodeError):
        return None
