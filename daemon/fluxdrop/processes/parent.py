"""What a child process does at its start: take its end of the pipes, and not outlive its parent."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys

from fluxdrop.processes.wire import Pipe

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Make Linux kill this process when its parent, the process *parent*, dies, whatever it does; see prctl(2).

    Raises:
        SystemExit: When the parent is gone already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent process is gone")


def open_pipe(program: str, *, is_bound_to_parent: bool = True) -> Pipe:
    """Return the pipe to the process that started this one, with ``--in FD --out FD`` as `Child` appends them.

    From then on, this process ignores Ctrl-C, and its own children do not inherit the pipe.

    Args:
        program: The module's name, for messages.
        is_bound_to_parent: Whether to call `die_with_parent` with the pid in ``--parent``.

    Raises:
        SystemExit: The command line is wrong, or the parent is gone already.
    """
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--in", dest="read_fd", type=int, required=True)
    parser.add_argument("--out", dest="write_fd", type=int, required=True)
    if is_bound_to_parent:
        parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    # Ctrl-C in a terminal reaches the whole process group, but the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if is_bound_to_parent:
        die_with_parent(arguments.parent)
    for fd in (arguments.read_fd, arguments.write_fd):
        os.set_inheritable(fd, False)
    return Pipe(arguments.read_fd, arguments.write_fd)
