"""Tell which filesystem holds a folder. File events are reliable on a local one only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

# Shares of a server or of a virtual machine's host, and disks that several machines mount.
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
_SETTLE_SECONDS = 2.0
_SHARE_SETTLE_SECONDS = 10.0
_ESCAPE = re.compile(r"\\(\d{3})")


def filesystem_of(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the filesystem that holds *path*, such as ``ext4``; empty if it is unknown.

    *mountinfo* has the format of proc_pid_mountinfo(5).
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
        # Of several mounts on one point, the last hides the others.
        if path.is_relative_to(point) and len(point) >= longest:
            longest = len(point)
            found = after.split()[0]
    return found


def settle_seconds(setting: float | Literal["auto"], filesystem: str) -> float:
    """Return how long a file has to stand still on *filesystem*, by the setting `settle_seconds`.

    On a share, nothing tells whether another machine is writing, and an NFS client may show an old size and time for
    3 seconds (nfs(5), acregmin). Scanners pause for 4 to 6 seconds.
    """
    if setting != "auto":
        return setting
    return _SHARE_SETTLE_SECONDS if needs_polling(filesystem) else _SETTLE_SECONDS


def needs_polling(filesystem: str) -> bool:
    """Return whether inotify can miss changes that another machine makes on *filesystem*."""
    return filesystem in _NETWORK or filesystem.startswith("fuse")
