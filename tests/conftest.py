"""Fixtures for all tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fluxdrop.files.layout import Root
from support.daemons import SAMPLES

pytest_plugins = [
    "support.desk",
    "support.generators",
    "support.intruders",
    "support.provisioning",
    "support.station",
    "support.used_root",
]


@pytest.fixture
def samples() -> Path:
    """The folder of the sample pictures."""
    return SAMPLES


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A root with nothing in it."""
    made = Root(tmp_path / "root")
    made.create()
    return made


@pytest.fixture
def png(samples: Path) -> bytes:
    """A whole PNG."""
    return (samples / "round_circle_01.png").read_bytes()


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """The test leaves no process, zombie, descriptor or thread."""
    me = psutil.Process()
    before = set(me.children()), me.num_fds(), threading.active_count()
    yield
    assert before == (set(me.children()), me.num_fds(), threading.active_count())
