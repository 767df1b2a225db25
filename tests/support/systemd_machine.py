"""A real systemd of our own: PID 1 of a few namespaces, with the units that a test installs and no others.

It shares the machine's files but has its own /run, processes, network and branch of the cgroups, and
ends with the test. No unit of the machine is started in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.daemons import PATIENCE

SYSTEMD = Path("/lib/systemd/systemd")
_BOOT = """
set -e
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mount --bind "$FILES/etc/passwd" /etc/passwd
mount --bind "$FILES/etc/group" /etc/group
echo up > "$FILES/up"
exec env -i container=test PATH="$PATH" SYSTEMD_UNIT_PATH="$FILES/etc/systemd/system" \
    /lib/systemd/systemd --system --unit=idle.target --log-target=null \
    --show-status=no --default-standard-output=null
"""
_ENTER = """
echo $$ > "$CGROUP/cgroup.procs" && exec unshare --mount --pid --fork --kill-child --mount-proc \
    --cgroup --ipc --uts --net sh -c "$BOOT"
"""
# What every service needs before itself, and nothing of the machine's own.
_TARGETS = ("idle", "sysinit", "basic", "shutdown", "local-fs", "remote-fs", "multi-user")


def needed() -> None:
    """Skip the test where no systemd can be started."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a systemd")
    missing = [tool for tool in ("unshare", "nsenter", "systemctl") if not shutil.which(tool)]
    if missing or not SYSTEMD.exists():
        pytest.skip(f"there is no {', '.join(missing) or 'systemd'} on this machine")
    if _cgroup_mount() is None:
        pytest.skip("no cgroup v2 hierarchy is mounted here")


class Machine:
    """A running systemd; *files* stands for the parts of / that are its own."""

    def __init__(self, files: Path, pid: int) -> None:
        self.files = files
        self._pid = pid

    def run(self, *command: str, check: bool = True) -> str:
        """Run *command* in the machine; what it prints."""
        done = subprocess.run(
            ["nsenter", "--target", str(self._pid), "--all", *command],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def property(self, unit: str, name: str) -> str:
        """What `systemctl show` says of *unit*."""
        return self.run("systemctl", "show", unit, "--property", name, "--value")


@contextmanager
def machine(files: Path) -> Iterator[Machine]:
    """A systemd with the units in *files*/etc/systemd/system and the accounts in *files*/etc."""
    units = files / "etc/systemd/system"
    for target in _TARGETS:
        (units / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    mount = _cgroup_mount()
    assert mount is not None
    cgroup = mount / f"fluxdrop-test-{uuid.uuid4().hex}"
    try:
        cgroup.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error.strerror}")
    process = subprocess.Popen(
        ["sh", "-c", _ENTER],
        env={**os.environ, "FILES": str(files), "CGROUP": str(cgroup), "BOOT": _BOOT},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Machine(files, _first_process(process, files))
    finally:
        process.kill()
        process.communicate()
        _remove(cgroup)


def _cgroup_mount() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _source, place, kind, options = line.split()[:4]
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(place)
    return None


def _first_process(process: subprocess.Popen[str], files: Path) -> int:
    """The pid of the systemd that *process* started, once it takes orders."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.skip(f"no systemd can be started here: {process.stderr.read().strip()}")
        pids = children.read_text().split()
        if pids and (files / "up").exists():
            pid = int(pids[0])
            state = Machine(files, pid).run("systemctl", "is-system-running", check=False)
            if state in ("running", "degraded", "starting"):
                return pid
        time.sleep(0.1)
    raise AssertionError("systemd did not come up")


def _remove(cgroup: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            for folder, _folders, _files in os.walk(cgroup, topdown=False):
                Path(folder).rmdir()
        except OSError:
            # Its processes were killed and are on their way out.
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"{cgroup} is still in use")
