"""Hosts of our own: what the tests of the cluster rest on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import hosts
from fluxdrop.cluster.starting import FIRST_PORT
from fluxdrop.resources import systemd_folder
from hosts import Cluster, Host
from support.daemons import PATIENCE, wait_for_end

pytestmark = pytest.mark.slow

ALIVE = """
import json, logging, ray, sys, time
ray.init(sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
deadline = time.monotonic() + float(sys.argv[3])
while True:
    names = sorted(node["NodeName"] for node in ray.nodes() if node["Alive"])
    if len(names) == int(sys.argv[2]) or time.monotonic() > deadline:
        break
    time.sleep(0.1)
print(json.dumps(names))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A station and two hosts."""
    hosts.needed()
    with hosts.cluster(tmp_path_factory.mktemp("cluster"), 2) as made:
        yield made


def alive(cluster: Cluster, count: int) -> list[str]:
    """The names of the machines that Ray's head sees, as soon as they are *count*."""
    asked = (sys.executable, "-c", ALIVE, hosts.address(), count, PATIENCE)
    told = cluster.station.run(*asked, env=cluster.station.credentials()).stdout
    # Ray's own lines, of hosts that it lost, come before.
    names: list[str] = json.loads(told.splitlines()[-1])
    return names


def test_losses(cluster: Cluster) -> None:
    """A host that is killed, and one whose cable is cut, are lost to the head, and are taken again when
    they start anew; one that is stopped for a moment stays."""
    one, two = cluster.hosts
    every = ["host1", "host2", "station"]
    assert every == alive(cluster, 3)

    one.kill()
    two.stop()
    two.cont()
    assert ["host2", "station"] == alive(cluster, 2)
    one.boot()
    one.start_ray()
    one.wait_for_ray()
    two.cut()
    assert ["host1", "station"] == alive(cluster, 2)
    two.heal()
    two.power_cycle()
    two.wait_for_ray()
    assert every == alive(cluster, 3)


def test_wrong_token(cluster: Cluster, tmp_path: Path) -> None:
    """Without the cluster's token nobody connects to it; a host without a token does not start, and says
    what is missing."""
    other = tmp_path / "token"
    other.write_text("f" * 64)
    other.chmod(0o600)
    host = cluster.hosts[0]
    answers = [
        host.run(
            *(sys.executable, "-m", "fluxdrop.cluster.token_probe", hosts.address()),
            env={**host.credentials(), "RAY_AUTH_TOKEN_PATH": str(token)},
        ).stdout.strip()
        for token in (host.member.token, other)
    ]
    missing = host.run(
        *(sys.executable, "-m", "fluxdrop.cluster.starting", "--station", "station"),
        env={"FLUXDROP_CLUSTER_TOKEN": str(tmp_path / "none")},
        check=False,
    )

    assert ["accepted", "refused"] == answers
    assert 1 == missing.returncode
    assert f"{tmp_path}/none cannot be read" in missing.stderr
    assert "Copy the file from the station, station" in missing.stderr


def test_nothing_is_left(tmp_path: Path) -> None:
    """Whatever kills the process that made them, the hosts end with it."""
    hosts.needed()
    script = (
        "import sys, time, pathlib, hosts\n"
        "with hosts.network(pathlib.Path(sys.argv[1]), 1) as made:\n"
        "    made.station.start('sleep', 1000)\n"
        "    print(*(one.first_pid for one in made.machines.values()), flush=True)\n"
        "    time.sleep(1000)\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True, env=environ
    )
    assert process.stdout is not None
    firsts = list(map(int, process.stdout.readline().split()))
    process.kill()
    process.communicate()

    assert 2 == len(firsts)
    for pid in firsts:
        wait_for_end(pid)


def test_processes_that_end(tmp_path: Path) -> None:
    """A process that ends while a host's processes are looked for is left out, or is killed already."""
    hosts.needed()
    with hosts.network(tmp_path, 0) as made:
        assert 1 == len(made.station.processes(two_that_end(made.station)))
        made.station.kill_processes(two_that_end(made.station))
        assert [] == made.station.processes(is_sleep)


def two_that_end(host: Host) -> Callable[[Sequence[str]], bool]:
    """Start two processes. What is returned picks them out, and both have ended once it was asked about one."""
    started = [host.start("sleep", 1000) for _ in range(2)]
    deadline = time.monotonic() + PATIENCE
    while len(host.processes(is_sleep)) < len(started):
        assert time.monotonic() < deadline, "the processes did not start"
        time.sleep(0.02)

    def is_meant(words: Sequence[str]) -> bool:
        if not is_sleep(words):
            return False
        for process in started:
            process.kill()
            process.wait()
        return True

    return is_meant


def is_sleep(words: Sequence[str]) -> bool:
    """Whether a command line is one of sleep(1)."""
    return list(words[:1]) == ["sleep"]


def test_tls(tmp_path: Path) -> None:
    """With the certificates that docs/cluster.md has made, a host joins its station by TLS."""
    hosts.needed()
    page = (systemd_folder().parent / "docs/cluster.md").read_text()
    shown = [line.strip() for line in page.splitlines() if line.startswith("    ")]
    authority, *certificate = [line for line in shown if re.match("openssl|printf", line)]
    with hosts.network(tmp_path, 1) as made:
        subprocess.run(authority, shell=True, check=True, cwd=tmp_path, capture_output=True)
        for machine in made.machines.values():
            tls = tmp_path / f"{machine.name}-tls"
            tls.mkdir()
            for name in ("ca.crt", "ca.key"):
                shutil.copy(tmp_path / name, tls)
            for line in certificate:
                own = line.replace("192.0.2.11", machine.address)
                subprocess.run(own, shell=True, check=True, cwd=tls, capture_output=True)
            machine.member = replace(machine.member, tls=tls)
            machine.start_ray()
        for machine in made.machines.values():
            machine.wait_for_ray()

        assert ["host1", "station"] == alive(made, 2)
        asked = f"import ssl; print(ssl.get_server_certificate(('station', {FIRST_PORT})))"
        told = made.hosts[0].run(sys.executable, "-c", asked).stdout
        assert (tmp_path / "station-tls/host.crt").read_text().strip() == told.strip()
