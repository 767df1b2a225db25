"""Processes in the namespaces of others."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from typing import Any

from fluxdrop.processes.procfs import children
from support.daemons import PATIENCE


class Inside(subprocess.Popen[Any]):
    """A process in a host. Signals go to it and not to the shell outside that waits for it, and whose exit
    code is the process's."""

    def send_signal(self, sig: int) -> None:
        """Send *sig* to the process, once it is there."""
        deadline = time.monotonic() + PATIENCE
        while self.poll() is None:
            if found := children(self.pid):
                with suppress(ProcessLookupError):
                    os.kill(found[0], sig)
                return
            assert time.monotonic() < deadline, "the process did not start"
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)
