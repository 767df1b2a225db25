"""The actor on a host, without Ray around it, and what the daemon loads of the cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.daemons import PATIENCE

pytestmark = pytest.mark.slow


def run(script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run *script* in a Python of its own, with *environ* added to the environment."""
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=os.environ | environ,
    )


def test_lease(tmp_path: Path) -> None:
    """An actor that is pinged lives on; one that is not ends, as its host may be cut off, and leaves no file."""
    done = run(
        "import asyncio, time\n"
        "from fluxdrop.cluster.hand import Hand\n"
        "hand = Hand(3.0)\n"
        "for _ in range(4):\n"
        "    asyncio.run(hand.ping())\n"
        "    time.sleep(1)\n"
        "print('alive', flush=True)\n"
        "time.sleep(1000)\n",
        TMPDIR=str(tmp_path),
    )

    assert "alive\n" == done.stdout
    assert 1 == done.returncode
    assert [] == list(tmp_path.iterdir())


def test_daemon_without_ray() -> None:
    """The hands of a cluster import neither Ray nor torch into the daemon."""
    done = run(
        "import sys, fluxdrop.cluster.cluster_hands\n"
        "print([name for name in ('ray', 'torch', 'diffusers') if name in sys.modules])"
    )

    assert "[]\n" == done.stdout, done.stderr
