"""Fixtures for all tests."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

from fluxdrop.files.layout import Root
from support.daemons import SAMPLES

# No test measures time: a busy machine would fail it.
settings.register_profile("fluxdrop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fluxdrop")

TESTS = Path(__file__).parent
SYSTEM = TESTS / "system"
LONGEST_FIRST = (
    "system/test_torture.py",
    "system/test_power_cuts.py",
    "system",
    "cluster",
    "predict",
    "generate",
)
"""A parallel run begins with these below tests/, so that no process works alone at its end."""

pytest_plugins = [
    "support.desk",
    "support.generators",
    "support.intruders",
    "support.graph_runs",
    "support.lent_worker",
    "support.preprocessing",
    "support.process_state",
    "support.provisioning",
    "support.station",
    "support.used_root",
]


def pytest_configure(config: pytest.Config) -> None:
    """Give each process of a parallel run a session of its own.

    Linux shares the processors among sessions. A generator, which takes nothing from others, would else wait until no
    other test computes.
    """
    if hasattr(config, "workerinput"):
        os.setsid()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of whole systems: they start daemons, browsers, systemd, or cut the power. Sort a parallel run."""
    for item in items:
        if item.path.is_relative_to(SYSTEM):
            item.add_marker("system")
            item.add_marker("slow")
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    ahead = (item.path.is_relative_to(TESTS / place) for place in LONGEST_FIRST)
    return next((turn for turn, is_of_it in enumerate(ahead) if is_of_it), len(LONGEST_FIRST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print beside each failure which promise is broken: what the test's docstring states."""
    report = yield
    if report.failed and isinstance(item, pytest.Function) and item.function.__doc__:
        report.sections.append(("broken promise", inspect.cleandoc(item.function.__doc__)))
    return report


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
