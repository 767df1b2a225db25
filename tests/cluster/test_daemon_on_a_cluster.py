"""A daemon whose prompts are done by the hosts of a cluster."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import hosts
from fluxdrop.files.layout import Root
from hosts import Cluster, Host
from support.audit import audit
from support.daemons import PATIENCE, Daemon, failures, fluxdrop, results
from support.needs import needs_generation
from support.torture import OF_CLUSTERS

pytestmark = [pytest.mark.slow, needs_generation]

SHORT = "Steps: 2, CFG scale: 3, Size: 64x64"
SETTINGS: dict[str, object] = {
    "engine": "onnxruntime",
    "settle_seconds": 0.1,
    "results_csv": "true",
    "max_steps": 1000,
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A station and two hosts."""
    hosts.needed()
    with hosts.cluster(tmp_path_factory.mktemp("cluster"), 2) as made:
        yield made


@pytest.fixture
def settings() -> dict[str, object]:
    """The settings of a daemon on the station."""
    return {**SETTINGS, "cluster": hosts.address()}


def drop(root: Root, name: str, parameters: str = SHORT) -> Path:
    """Drop a prompt; the path that it has then."""
    path = root.inbox / name
    path.write_text(f"a red circle, {name}\n{parameters}\n")
    return path


def drop_all(root: Root, count: int, parameters: str = SHORT) -> dict[str, bytes]:
    """Drop *count* prompts, and return what was dropped by its name."""
    paths = [drop(root, f"{number}.txt", parameters) for number in range(count)]
    return {path.name: path.read_bytes() for path in paths}


def digest(data: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()


def status(root: Root) -> dict[str, Any]:
    """What the daemon says of itself."""
    told: dict[str, Any] = json.loads(root.heartbeat.read_bytes())
    return told


def wait_for_hosts(daemon: Daemon, *names: str, states: tuple[str, ...] = ("ready",)) -> None:
    """Wait until these hosts are in one of *states*."""

    def found() -> list[str]:
        told = status(daemon.root)["hosts"]
        return sorted(host["name"] for host in told if host["state"] in states)

    daemon.wait_until(lambda: found() == sorted(names), f"{names}")


def makers(root: Root) -> set[str]:
    """The hosts that made the pictures of *root*."""
    return {record["generator"]["host"] for record in results(root).values()}


def test_pictures(root: Root, cluster: Cluster, settings: dict[str, object]) -> None:
    """Both hosts make pictures, each result says which and of what class, the same seed gives the same bytes on both,
    and the daemon itself has neither torch nor Ray in memory."""
    with cluster.station.daemon(root, **settings) as daemon:
        drop_all(root, 8, f"{SHORT}, Seed: 5")
        daemon.wait_for_ends(8)
        mapped = mapped_files(daemon)
        brokers = cluster.station.processes(lambda words: "fluxdrop.cluster.broker" in words)
        wait_for_hosts(daemon, "host1", "host2")

    assert {} == failures(root)
    assert {"host1", "host2"} == makers(root)
    assert 1 == len({record["generator"]["host_class"] for record in results(root).values()})
    assert not [name for name in mapped if "torch" in name or "raylet" in name]
    assert 1 == len(brokers)


def mapped_files(daemon: Daemon) -> set[str]:
    """The names of the files that a daemon in a host has mapped."""
    (inside,) = psutil.Process(daemon.process.pid).children()
    return {Path(region.path).name for region in inside.memory_maps()}


def test_killed_host(root: Root, cluster: Cluster, settings: dict[str, object]) -> None:
    """What a host had in hand when it was killed is made on the other one, and nothing is lost or doubled; when the
    host is back, it is used again."""
    one, _two = cluster.hosts
    with cluster.station.daemon(root, **settings) as daemon:
        dropped = drop_all(root, 8, "Steps: 40, CFG scale: 3, Size: 64x64")
        daemon.wait_until(lambda: working(root, one), "work on host1")
        one.kill()
        daemon.wait_for_ends(8)
        one.boot()
        one.start_ray()
        one.wait_for_ray()
        wait_for_hosts(daemon, "host1", "host2")

    assert ({}, set(dropped)) == (failures(root), {f"{name[:-5]}.txt" for name in results(root)})
    again = [record for record in results(root).values() if record["attempts"] > 1]
    assert ["host2"] * len(again) == [record["generator"]["host"] for record in again] != []


def working(root: Root, host: Host) -> list[str]:
    """The jobs whose pictures *host* makes."""
    return [
        job for told in status(root)["hosts"] if told["name"] == host.name for job in told["jobs"]
    ]


def test_killed_daemon(root: Root, cluster: Cluster, settings: dict[str, object]) -> None:
    """Wherever the daemon is killed between dispatch and result, the next one loses and doubles nothing, and a picture
    has the seed that it was first begun with."""
    dropped = drop_all(root, 4)
    seeds = set()
    for point in OF_CLUSTERS:
        killed = {**settings, "failpoint": point}
        with cluster.station.daemon(root, **killed) as daemon:
            assert -signal.SIGKILL == daemon.process.wait(PATIENCE)
        seeds |= {int(path.name[5:]) for path in root.work.glob("*/seed=*")}
    with cluster.station.daemon(root, **settings) as daemon:
        daemon.wait_for_ends(4)
        daemon.stop()

    made = {record["generation"]["seed"] for record in results(root).values()}
    assert ({}, 4) == (failures(root), len(results(root)))
    assert seeds <= made
    audit(root, {digest(data): (name, True) for name, data in dropped.items()}, {}, {})


def test_cancel(root: Root, cluster: Cluster, settings: dict[str, object]) -> None:
    """A picture that a host makes shows its progress, and ends when it is cancelled, while the other host goes on."""
    with cluster.station.daemon(root, **settings) as daemon:
        drop(root, "long.txt", "Steps: 1000, CFG scale: 3, Size: 64x64")
        drop(root, "other.txt", "Steps: 400, CFG scale: 3, Size: 64x64")
        daemon.wait_until(lambda: progress(root).keys() >= {"long.txt", "other.txt"}, "both")
        told = fluxdrop("cancel", "long.txt", "--root", root.path)
        daemon.wait_for_ends(2)
        wait_for_hosts(daemon, "host1", "host2")

    assert 0 == told.returncode, told.stderr
    (failure,) = failures(root).values()
    assert ("long.txt", "cancelled") == (failure["source"]["file"], failure["error"]["kind"])
    assert ["other.json"] == list(results(root))


def progress(root: Root) -> dict[str, int]:
    """How many steps of each prompt that is made are done."""
    return {one["file"]: one["step"] for one in status(root)["currents"] if one["step"]}
