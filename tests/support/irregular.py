"""What may lie where a regular file is expected."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from support.daemons import SAMPLES

_MAKERS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": Path.mkdir,
    "fifo": os.mkfifo,
    "symlink": lambda path: path.symlink_to(SAMPLES / "round_ring_01.png"),
}

each_irregular = pytest.mark.parametrize("make", _MAKERS.values(), ids=_MAKERS)
"""Runs a test with each of them, as a function that makes it at a path."""
