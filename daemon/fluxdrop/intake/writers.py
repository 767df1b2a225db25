"""Find out whether any process has a file open for writing.

There are three ways, and each sees what the others do not:

- A lease (fcntl(2), F_SETLEASE): the kernel refuses a read lease on a file that anybody on this machine has open for
  writing: Samba and the NFS server too, and processes in other containers. It costs three system calls. It needs the
  owner of the file or CAP_LEASE, and a filesystem that has leases.
- /proc/PID/fd: it needs neither, but shows only the processes that this user may inspect. Reading it takes
  milliseconds, so it is read only where leases are not possible, and once in a turn of the intake.
- Events: a file that was written to and was not closed. They need no rights at all, and are all that is left to a
  sandboxed daemon whose files belong to others. `Hint.WRITTEN` stands for them.

fanotify is not used: it needs CAP_SYS_ADMIN, and tells no more than these three.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from fluxdrop.files.durable import open_regular_fd

# The kernel signals a process whose lease is broken, with SIGIO if it is not told otherwise, which would end it. SIGURG
# is ignored.
_F_SETSIG = 10
_MAX_DESCRIPTORS = 50_000


class Writers:
    """Answers `is_open` for the files of one turn. One thread owns it."""

    def __init__(self) -> None:
        self._open: dict[str, list[str]] | None = None
        """The links to open files in /proc, by the names of the files; None if they were not read in this turn."""

    def begin_turn(self) -> None:
        """Forget which files were open."""
        self._open = None

    def is_open(self, fd: int) -> bool | None:
        """Return whether anybody has the file open for writing that is open as *fd*, for reading; None if unknown."""
        leased = is_open_by_lease(fd)
        if leased is not None:
            return leased
        if self._open is None:
            self._open = _open_files()
        with suppress(OSError):
            name = os.readlink(f"/proc/self/fd/{fd}").rpartition("/")[2]  # noqa: PTH115
            if any(_is_writer(link, os.fstat(fd)) for link in self._open.get(name, ())):
                return True
        return None


def is_open_by_lease(fd: int) -> bool | None:
    """Return whether anybody has the file open for writing; None if this user can have no lease on it.

    Args:
        fd: The file, open for reading.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    # Whoever opens the file for writing meanwhile waits for this.
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def is_open_for_writing(path: Path) -> bool:
    """Return whether it is known, by a lease, that somebody has the file *path* open for writing."""
    try:
        fd = open_regular_fd(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return is_open_by_lease(fd) is True
    finally:
        os.close(fd)


def _open_files() -> dict[str, list[str]]:
    """Return the links in /proc to the files that other processes have open, by the names of the files."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    count = 0
    own = str(os.getpid())
    with suppress(OSError):
        for process in os.listdir("/proc"):  # noqa: PTH208 - thousands of calls
            if not process.isdecimal() or process == own:
                continue
            folder = f"/proc/{process}/fd"
            with suppress(OSError):
                for number in os.listdir(folder):  # noqa: PTH208
                    count += 1
                    if count > _MAX_DESCRIPTORS:
                        return found
                    with suppress(OSError):
                        target = os.readlink(f"{folder}/{number}")  # noqa: PTH115
                        if target.startswith("/"):
                            found[target.rpartition("/")[2]].append(f"{folder}/{number}")
    return found


def _is_writer(link: str, file: os.stat_result) -> bool:
    """Return whether *link* in /proc is to *file*, open for writing."""
    try:
        if not os.path.samestat(os.stat(link), file):  # noqa: PTH116
            return False
        with open(link.replace("/fd/", "/fdinfo/")) as info:  # noqa: PTH123
            # Of the form "flags:\t0100001" in octal, see proc_pid_fdinfo(5).
            flags = next((int(line.split()[1], 8) for line in info if line.startswith("flags:")), 0)
    except OSError:
        return False
    return flags & os.O_ACCMODE != os.O_RDONLY
