"""Whether an input was written to after it was taken: whoever dropped it may still have it open."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class InputState(NamedTuple):
    """What changes when a file is written to."""

    size: int
    mtime_ns: int


def state_of(path: Path) -> InputState | None:
    """Return the state of the file *path*; None if it is not there."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return InputState(status.st_size, status.st_mtime_ns)
