"""What a test must leave as it was in the process that the other tests run in."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

_LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]
_EXEMPT = {"PYTEST_CURRENT_TEST", "COLUMNS", "LINES", "LD_LIBRARY_PATH"}
"""Variables of pytest's, and the one that importing OpenCV changes."""

_OURS = ("$FLUXDROP_", "$JULIA", "$PYTHON", "$XDG_")
"""How the variables begin that a test must not leave set; libraries set others when they are imported."""
_SIGNALS = set(signal.Signals) - {signal.SIGALRM}
"""All but pytest-timeout's."""


@pytest.fixture(autouse=True)
def process_state() -> Iterator[None]:
    """Fail a test that leaves a limit, a variable or the like changed: Julia and others would fail in later tests."""
    before = _state()
    yield
    after = _state()
    left = [
        name
        for name in before | after
        if before.get(name) != after.get(name)
        and (name in before or name[0] != "$" or name.startswith(_OURS))
    ]
    assert not left, f"the test leaves behind: {left}"


def _state() -> dict[str, object]:
    """Limits, variables, signals, folder, mask of permissions and identity of this process, by name."""
    mask = os.umask(0o022)
    os.umask(mask)
    state: dict[str, object] = {
        "folder": Path.cwd(),
        "umask": mask,
        "users": os.getresuid(),
        "groups": (os.getresgid(), os.getgroups()),
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "niceness": os.nice(0),
    }
    state |= {name: resource.getrlimit(getattr(resource, name)) for name in _LIMITS}
    state |= {item.name: signal.getsignal(item) for item in _SIGNALS}
    return state | {f"${name}": text for name, text in os.environ.items() if name not in _EXEMPT}
