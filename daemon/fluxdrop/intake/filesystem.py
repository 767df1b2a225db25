"""Which filesystem holds a folder: events can be trusted on a local one only."""

from __future__ import annotations

import re
from pathlib import Path

_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "virtiofs"}
)
_ESCAPE = re.compile(r"\\(\d{3})")


def filesystem_of(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the filesystem that holds *path*, such as ``ext4``; empty where it cannot be told.

    Format: proc_pid_mountinfo(5).
    """
    device = path.stat().st_dev
    number = f"{device >> 8 & 0xFFF}:{(device & 0xFF) | (device >> 12 & 0xFFF00)}"
    found = ""
    try:
        lines = mountinfo.read_text().splitlines()
    except OSError:
        return ""
    longest = -1
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
        if fields[2] == number and path.is_relative_to(point) and len(point) > longest:
            longest = len(point)
            found = after.split()[0]
    return found


def needs_polling(filesystem: str) -> bool:
    """Whether changes made by another machine can go unnoticed by inotify on *filesystem*."""
    return filesystem in _NETWORK or filesystem.startswith("fuse")
