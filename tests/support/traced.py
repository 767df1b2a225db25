"""What a command and its children do to the network and the disk, by strace."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from support.daemons import PATIENCE

_CALLS = (
    "connect,sendto,sendmsg,sendmmsg,"
    "open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,link,linkat,symlink,symlinkat,"
    "rename,renameat,renameat2,unlink,unlinkat,rmdir,truncate,"
    "chmod,fchmodat,chown,fchownat,utimensat,setxattr"
)
_STRACE = ("strace", "-f", "--seccomp-bpf", "-qq")
_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+|\?)")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")
_UNFINISHED = re.compile(r"(\d+) +(.*) <unfinished \.\.\.>")
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_NETWORK = ("connect", "sendto", "sendmsg", "sendmmsg")
_OPENS = ("open", "openat", "openat2")
_WRITES = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC")
_HARMLESS = ("/dev/null", "/dev/tty", "/proc/")


class Trace(NamedTuple):
    """How a command ended, whom it addressed beyond this machine, and every path that it made, opened to write to,
    changed or removed."""

    code: int
    output: str
    addressed: list[str]
    written: set[Path]

    def outside(self, *folders: Path) -> set[Path]:
        """What was written that is not in *folders*."""
        inside = [folder.resolve() for folder in folders]
        return {
            path for path in self.written if not any(path.is_relative_to(one) for one in inside)
        }


def traced(
    command: Sequence[object], environment: Mapping[str, str], working_folder: Path, log: Path
) -> Trace:
    """Run *command* in *working_folder* with no variables but *environment*, to its end."""
    ended = subprocess.run(
        [*_STRACE, "-y", "-s", "4096", "-o", log, "-e", f"trace={_CALLS}", *map(str, command)],
        env=dict(environment),
        cwd=working_folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    addressed: list[str] = []
    written: set[Path] = set()
    for name, arguments, result in _calls(log.read_text(errors="replace").splitlines()):
        if name in _NETWORK:
            # Whether it succeeds or not: the attempt is seen on the network. Loopback is this machine.
            if "AF_INET" in arguments and not re.search(r'"127\.|"::1"', arguments):
                addressed.append(f"{name}({arguments})")
        elif not result.startswith("-") and (
            name not in _OPENS or any(flag in arguments for flag in _WRITES)
        ):
            written |= {
                _resolved(folder or str(working_folder), path)
                for folder, path in _PATH.findall(arguments)
            }
    harmless = {path for path in written if str(path).startswith(_HARMLESS)}
    return Trace(ended.returncode, ended.stdout, addressed, written - harmless)


def needs_strace() -> None:
    """Skip the test where nothing can be traced."""
    if sys.platform != "linux" or not shutil.which("strace"):
        pytest.skip("there is no strace")
    tried = subprocess.run(
        [*_STRACE, "-e", "trace=connect", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode or tried.stderr:
        pytest.skip(f"nothing can be traced here: {tried.stderr.strip()}")


def _calls(lines: Sequence[str]) -> list[tuple[str, str, str]]:
    """Name, arguments and result of each call; one that another thread's interrupted is put together."""
    begun: dict[str, str] = {}
    found = []
    for line in lines:
        if unfinished := _UNFINISHED.fullmatch(line):
            begun[unfinished[1]] = unfinished[2]
            continue
        if resumed := _RESUMED.fullmatch(line):
            line = f"{begun.pop(resumed[1], '')}{resumed[3]}"
        if call := _LINE.match(line):
            found.append((call[1], call[2], call[3]))
    # A call of a process that was killed in it has begun all the same.
    found += [(*text.partition("(")[::2], "?") for text in begun.values()]
    return found


def _resolved(folder: str, path: str) -> Path:
    # Octal and hexadecimal escapes stand for bytes that are no part of a path of ours.
    return Path(os.path.normpath(Path(folder, path)))
