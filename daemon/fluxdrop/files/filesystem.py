"""Which filesystem holds a folder: events can be trusted on a local one only."""

from __future__ import annotations

import re
from pathlib import Path

# Shares of a server, of a host that a virtual machine runs on, and disks that several machines mount.
_NETWORK = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "coda",
        "ceph",
        "glusterfs",
        "lustre",
        "beegfs",
        "gpfs",
        "orangefs",
        "pvfs2",
        "9p",
        "virtiofs",
        "vboxsf",
        "prl_fs",
        "gfs2",
        "ocfs2",
    ]
)
_ESCAPE = re.compile(r"\\(\d{3})")


def filesystem_of(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the filesystem that holds *path*, such as ``ext4``; empty where it cannot be
    told.

    Format: proc_pid_mountinfo(5).
    """
    try:
        lines = mountinfo.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    path = path.resolve()
    found = ""
    longest = -1
    for line in lines:
        before, _, after = line.partition(" - ")
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), before.split()[4])
        # Of several mounts on one point the last hides the others.
        if path.is_relative_to(point) and len(point) >= longest:
            longest = len(point)
            found = after.split()[0]
    return found


def needs_polling(filesystem: str) -> bool:
    """Whether changes made by another machine can go unnoticed by inotify on *filesystem*."""
    return filesystem in _NETWORK or filesystem.startswith("fuse")
