"""Failpoints: which of them kills a process, and when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

CODE = """
from fluxdrop import failpoints
for name in ("claim-renamed", "plan-written", "claim-renamed", "claim-renamed"):
    print(name, flush=True)
    failpoints.reach(name)
"""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, 4),
        ("", 4),
        ("plan-written", 2),
        ("claim-renamed", 1),
        ("claim-renamed:1", 1),
        ("claim-renamed:2", 3),
        ("claim-renamed:4", 4),
        ("stopping", 4),
    ],
)
def test_failpoint(value: str | None, expected: int) -> None:
    """A process kills itself the first or the N-th time at the failpoint that the environment names."""
    environment = {key: text for key, text in os.environ.items() if key != "FLUXDROP_FAILPOINT"}
    if value is not None:
        environment["FLUXDROP_FAILPOINT"] = value
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False
    )
    is_killed = value not in (None, "", "claim-renamed:4", "stopping")

    assert (-signal.SIGKILL if is_killed else 0) == done.returncode, done.stderr
    assert expected == len(done.stdout.split())
