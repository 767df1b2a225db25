"""Opening files that strangers may have prepared."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.files.durable import sync_inputs
from fluxdrop.files.regular import open_regular


def test_lease(tmp_path: Path) -> None:
    """A file on which another process has a lease is that file's fault, and neither waited for nor a defect."""
    path = tmp_path / "a.png"
    path.touch()
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with pytest.raises(FluxdropError, match=r"a\.png.*temporarily unavailable"):
            open_regular(path, "unreadable")
        sync_inputs([path])
    finally:
        os.close(fd)
        signal.signal(signal.SIGIO, before)
