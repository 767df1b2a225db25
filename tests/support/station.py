"""An intake with real files and real inotify, stepped by the test."""

from __future__ import annotations

import io
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from fluxdrop.config import Settings
from fluxdrop.files.layout import Root
from fluxdrop.intake.intake import Intake
from fluxdrop.jobs.claim import Claim, NewJob, read_claim

PATIENCE = 60.0
"""Seconds after which an intake that should have claimed something has failed."""
SETTINGS = Settings(settle_seconds=0.1, incomplete_seconds=0.4, scan_seconds=3600)
"""With one scan at the start, whatever is found later is found by events."""


class Station:
    """An intake and what it claimed."""

    def __init__(self, root: Root, settings: Settings = SETTINGS) -> None:
        self.root = root
        self.room = 1_000_000
        self.claims: list[Path] = []
        self._kinds: Counter[bool] = Counter()
        self.intake = Intake(
            root, settings, self._accept, lambda is_prompt: self._kinds[is_prompt] < self.room
        )

    def _accept(self, job: NewJob) -> None:
        # What the intake says of it is what another daemon would read.
        assert read_claim(job.folder) == job.claim
        self.claims.append(job.folder)
        self._kinds[self.source(job.folder).endswith(".txt")] += 1

    def source(self, claim: Path) -> str:
        """The path that *claim* had below the inbox."""
        return str(self.claim(claim).source)

    def claim(self, folder: Path) -> Claim:
        """What was claimed into *folder*."""
        claim = read_claim(folder)
        assert claim is not None
        return claim

    def step_until(self, is_so: Callable[[], object]) -> None:
        """Step until *is_so*."""
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < deadline, (self.claims, self.intake.skipped)
            self.intake.step(timeout=0.1)

    def steps(self, count: int = 3) -> None:
        """Take a few steps more, in which nothing is to happen."""
        for _ in range(count):
            self.intake.step(timeout=0.01)

    def take(self, count: int) -> dict[str, bytes]:
        """Step until *count* files are claimed; return their contents by their paths."""
        self.step_until(lambda: len(self.claims) >= count)
        return self.contents()

    def contents(self) -> dict[str, bytes]:
        """The contents of what was claimed, by the paths below the inbox."""
        sources = [self.source(claim) for claim in self.claims]
        assert len(sources) == len(set(sources))
        return {
            source: self.claim(claim).input.read_bytes()
            for source, claim in zip(sources, self.claims, strict=True)
        }

    def drop(self, path: str, data: bytes) -> Path:
        """Write *data* to *path* below the inbox."""
        target = self.root.inbox / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return target


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged."""
    return [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]


def noisy_png() -> bytes:
    """A PNG too large to be written at once."""
    out = io.BytesIO()
    Image.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def station(root: Root) -> Iterator[Station]:
    """An intake that has made its first scan, of an empty inbox."""
    station = Station(root)
    with closing(station.intake):
        station.intake.step(timeout=0)
        assert station.intake.watching
        yield station
