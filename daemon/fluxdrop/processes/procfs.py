"""What Linux says of processes in /proc; elsewhere nothing is known."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int) -> int:
    """Return the resident memory of the process *pid* in bytes (proc_pid_statm(5)); 0 if it is unknown."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return int(fields[1]) * _PAGE_BYTES


def children(pid: int) -> list[int]:
    """Return the processes that the main thread of *pid* started (proc_tid_children(5)); none if that is unknown."""
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []
