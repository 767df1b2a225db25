"""A station and hosts on one machine: each a few namespaces with a network, processes, /run and /dev/shm
of its own, joined by a bridge.

They share the machine's files, so a root or an installation is at the same path in all of them. All
of it ends with this process, even if that is killed: each first process reads from a pipe of this one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import psutil
import pytest

from fluxdrop.cluster.starting import FIRST_PORT, FOLDER, VARIABLES, Member, connecting
from fluxdrop.files.layout import Root, holder
from fluxdrop.processes.procfs import children
from support.daemons import PATIENCE, Daemon, environment
from support.inside import Inside

_NETWORK = "10.233.7"
_STATION = 10
_STORE_BYTES = 80 << 20
_SWITCH = """
ip link add switch type bridge && ip addr add {network}.254/24 dev switch && ip link set switch up &&
echo up && exec cat
"""
# The first process has to reap those whose parents died: the kernel does it where SIGCHLD is ignored.
_BOOT = """
set -e
hostname "$NAME"
mount -t tmpfs tmpfs /run
mount -t tmpfs -o size=256m tmpfs /dev/shm
mkdir {folder}
mount --bind "$FILES" {folder}
mount --bind "$HOSTS" /etc/hosts
ip link set lo up
echo up
exec env --ignore-signal=CHLD cat
"""
# nsenter itself would stop when what it started is stopped.
_WAIT = '"$@"; code=$?; test $code -gt 128 && kill -$((code - 128)) $$; exit $code'
_ENTER = ("unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child")
_TOOLS = ("ip", "unshare", "nsenter", "mount", "hostname")


def missing() -> str:
    """Why no hosts can be made here, or nothing."""
    if os.geteuid() != 0:
        return "only root can make hosts"
    if tools := [tool for tool in _TOOLS if not shutil.which(tool)]:
        return f"there is no {', '.join(tools)}"
    if not find_spec("ray"):
        return "the extra 'cluster' is not installed"
    tried = subprocess.run(
        [*_ENTER, "sh", "-c", "ip link add switch type bridge && ip link add cable type veth"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no namespaces or no bridge can be made: {tried.stderr.strip()}" * bool(
        tried.returncode
    )


def needed() -> None:
    """Skip the test where no hosts can be made."""
    if reason := missing():
        pytest.skip(reason)


class Host:
    """A host in *cluster*; `member` says how Ray runs in it."""

    def __init__(self, cluster: Cluster, name: str, number: int, member: Member) -> None:
        self.name = name
        self.address = f"{_NETWORK}.{number}"
        self.member = member
        self.files = cluster.folder / name
        """What the host sees as Ray's folder: its logs are in it."""
        self._cluster = cluster
        self._unshare: subprocess.Popen[str] | None = None
        self._ray: Inside | None = None
        self._frozen: list[psutil.Process] = []

    @property
    def first_pid(self) -> int:
        """The pid of the host's first process; without it there is no other."""
        assert self._unshare is not None, f"{self.name} is down"
        return children(self._unshare.pid)[0]

    def boot(self) -> None:
        """Start the host with its cable plugged in, and nothing else in it."""
        self.files.mkdir(exist_ok=True)
        files = {"FILES": str(self.files), "HOSTS": str(self._cluster.names)}
        # util-linux 2.38 complains here of a signal mask, which harms nothing.
        log = self.files / "boot.log"
        with log.open("ab") as stderr:
            self._unshare = subprocess.Popen(
                [*_ENTER, "--mount-proc", "sh", "-c", _BOOT.format(folder=FOLDER)],
                env={**os.environ, **files, "NAME": self.name},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert self._unshare.stdout is not None
        assert "up\n" == self._unshare.stdout.readline(), f"{self.name}: {log.read_text()}"
        add = ["link", "add", self.name, "type", "veth", "peer", "name", "eth0"]
        self._cluster.ip(*add, "netns", str(self.first_pid))
        self._cluster.ip("link", "set", self.name, "master", "switch", "up")
        for words in (
            ["addr", "add", f"{self.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["route", "add", "default", "via", f"{_NETWORK}.254"],
        ):
            self.run("ip", *words)

    def start_ray(self) -> None:
        """Start Ray, as the host's unit does; it needs some seconds to be there."""
        with (self.files / "ray.log").open("wb") as log:
            role = ["--station", self.member.station] if self.member.station else ["--head"]
            command = (sys.executable, "-m", "fluxdrop.cluster.starting", *role)
            given = {
                VARIABLES[key]: str(value)
                for key, value in asdict(self.member).items()
                if key in VARIABLES and value is not None
            }
            self._ray = self.start(*command, env=given, stdout=log, stderr=log)

    def restart_ray(self) -> None:
        """Start Ray if it ended, as the host's unit does: without what is left of it."""
        if self._ray is not None and self._ray.poll() is not None:
            self.kill_processes(is_of_ray)
            self.start_ray()

    @property
    def is_without_ray(self) -> bool:
        """Whether its Ray has ended, or was never started."""
        return self._ray is None or self._ray.poll() is not None

    def wait_for_ray(self) -> None:
        """Wait until the host's Ray belongs to the cluster."""
        deadline = time.monotonic() + PATIENCE
        assert self._ray is not None, f"{self.name}: Ray was not started"
        while "Ray runtime started" not in (log := (self.files / "ray.log").read_text()):
            assert self._ray.poll() is None, f"{self.name}: Ray ended:\n{log}"
            assert time.monotonic() < deadline, f"{self.name}: no Ray in time:\n{log}"
            time.sleep(0.1)

    def start(
        self,
        *command: object,
        env: Mapping[str, str] | None = None,
        stdout: IO[bytes] | int | None = None,
        stderr: IO[bytes] | int | None = None,
        cwd: Path | None = None,
    ) -> Inside:
        """Start *command* in the host, with *env* beside this process's own environment."""
        return Inside(
            self._entered(command),
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
        )

    def run(
        self, *command: object, env: Mapping[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run *command* in the host to its end; with *check*, it must succeed."""
        done = subprocess.run(
            self._entered(command),
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def credentials(self) -> dict[str, str]:
        """The environment with which a process in the host connects to the cluster."""
        return connecting(self.member.token, self.member.tls)

    def _entered(self, command: Sequence[object]) -> list[str]:
        into = ("--net", "--mount", "--pid", "--ipc", "--uts", "--no-fork")
        enter = ["nsenter", f"--target={self.first_pid}", *into, "--", "sh", "-c", _WAIT, "sh"]
        return [*enter, *map(str, command)]

    def processes(
        self, is_meant: Callable[[list[str]], bool] = lambda words: True
    ) -> list[psutil.Process]:
        """The host's processes but its first one, those only whose command lines *is_meant*; each may end meanwhile."""
        first = self.first_pid
        own = Path(f"/proc/{first}/ns/pid").readlink()
        found = []
        for pid in set(psutil.pids()) - {first}:
            with suppress(OSError, psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if own == Path(f"/proc/{pid}/ns/pid").readlink() and is_meant(process.cmdline()):
                    found.append(process)
        return found

    def kill_processes(self, is_meant: Callable[[list[str]], bool]) -> None:
        """Kill the host's processes whose command lines *is_meant*."""
        for process in self.processes(is_meant):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def kill(self) -> None:
        """Kill all processes in the host at once; the others see its connections closed."""
        assert self._unshare is not None, f"{self.name} is down"
        with suppress(IndexError):
            os.kill(self.first_pid, signal.SIGKILL)
        self._unshare.communicate()
        self._unshare = None
        if self._ray is not None:
            self._ray.wait()
            self._ray = None
        self._cluster.ip("link", "del", self.name, check=False)

    def cut(self) -> None:
        """Pull the host's cable: what is sent is lost, and nobody is told."""
        self._cluster.ip("link", "set", self.name, "down")

    def heal(self) -> None:
        """Plug the cable in again."""
        self._cluster.ip("link", "set", self.name, "up")

    def stop(self) -> None:
        """SIGSTOP to all processes in the host."""
        while fresh := [one for one in self.processes() if one not in self._frozen]:
            for process in fresh:
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
            self._frozen += fresh

    def cont(self) -> None:
        """Let go on what `stop` stopped."""
        for process in self._frozen:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        self._frozen = []

    def power_off(self) -> None:
        """Cut the power: all processes end, and the others are not told."""
        self.cut()
        self.kill()

    def power_cycle(self) -> None:
        """Cut the power and start again: the files are there, and Ray runs as after any start."""
        self.power_off()
        self.boot()
        self.start_ray()

    @contextmanager
    def daemon(self, root: Root, *flags: str, **settings: object) -> Iterator[Daemon]:
        """`fluxdrop run` on *root* in the host, that has announced itself; see `started`."""
        with self.started(root, *flags, **settings) as served:
            served.wait_until(lambda: holder(root) and root.heartbeat.exists(), "heartbeat")
            yield served

    @contextmanager
    def started(self, root: Root, *flags: str, **settings: object) -> Iterator[Daemon]:
        """`fluxdrop run` on *root* in the host, as soon as there is a process; it is killed if the test
        leaves it. *settings* become FLUXDROP_ variables."""
        environ = {**self.credentials(), **environment(**settings)}
        with (root.path / "stderr.log").open("ab") as log:
            command = (sys.executable, "-m", "fluxdrop", "run", "--root", root.path, *flags)
            process = self.start(*command, env=environ, stdout=log, stderr=log)
        try:
            yield Daemon(root, process)
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Cluster:
    """A station and its hosts; *folder* has their files."""

    folder: Path
    switch: subprocess.Popen[str]
    names: Path
    """Stands for /etc/hosts."""
    machines: dict[str, Host]
    """By their names: the station, host1, host2..."""

    @property
    def station(self) -> Host:
        """The machine with the head."""
        return self.machines["station"]

    @property
    def hosts(self) -> list[Host]:
        """All machines but the station."""
        return [host for name, host in self.machines.items() if name != "station"]

    def add(self, member: Member | None = None) -> Host:
        """Boot another host, without Ray; *member* where it is not as the others are."""
        number = len(self.machines)
        made = Host(self, f"host{number}", _STATION + number, member or self._member())
        self.machines[made.name] = made
        self._write_names()
        made.boot()
        return made

    def ip(self, *words: str, check: bool = True) -> None:
        """Run `ip` where the cables are."""
        command = ["nsenter", f"--target={self.switch.pid}", "--net", "ip", *words]
        subprocess.run(command, check=check, capture_output=True)

    def _member(self) -> Member:
        return replace(self.station.member, station="station", address=None)

    def _add_station(self, token: Path) -> None:
        member = Member(
            address=f"{_NETWORK}.{_STATION}", token=token, gpus=0, object_store_bytes=_STORE_BYTES
        )
        self.machines["station"] = Host(self, "station", _STATION, member)
        self._write_names()
        self.station.boot()

    def _write_names(self) -> None:
        lines = [f"{host.address} {host.name}\n" for host in self.machines.values()]
        self.names.write_text("".join(["127.0.0.1 localhost\n", *lines]))


@contextmanager
def network(folder: Path, hosts: int) -> Iterator[Cluster]:
    """A station and *hosts* hosts that are up, without Ray; their files are in *folder*."""
    token = folder / "cluster.token"
    token.write_text("0123456789abcdef" * 4)
    token.chmod(0o600)
    switch = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", _SWITCH.format(network=_NETWORK)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    made = Cluster(folder, switch, folder / "hosts", {})
    try:
        assert switch.stdout is not None
        assert "up\n" == switch.stdout.readline(), "there is no bridge"
        made._add_station(token)
        for _ in range(hosts):
            made.add()
        yield made
    finally:
        with ExitStack() as ends:
            ends.callback(switch.communicate)
            ends.callback(switch.kill)
            for host in made.machines.values():
                if host._unshare is not None:
                    ends.callback(host.kill)


@contextmanager
def cluster(folder: Path, hosts: int) -> Iterator[Cluster]:
    """A station with a head and *hosts* hosts, all in one cluster of Ray; their files are in *folder*."""
    with network(folder, hosts) as made:
        # A host whose head is not there yet tries again.
        for machine in made.machines.values():
            machine.start_ray()
        for machine in made.machines.values():
            machine.wait_for_ray()
        yield made


def address() -> str:
    """What `cluster` is set to on the station."""
    return f"{_NETWORK}.{_STATION}:{FIRST_PORT}"


def is_of_ray(words: Sequence[str]) -> bool:
    """Whether a process with the command line *words* is one of Ray's own, and no driver."""
    line = " ".join(words)
    own = ("ray::", "/ray/", "ray.scripts", "fluxdrop.cluster.starting")
    return any(part in line for part in own)
