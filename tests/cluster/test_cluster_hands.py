"""Making pictures on the hosts of a cluster: what comes back, and what happens when a part of it is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import hosts
from hosts import Cluster
from support.remote_hands import TIMED_PIPELINE, RemoteHands, remote_hands

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A station and two hosts whose pictures take as long as their prompts say."""
    hosts.needed()
    with pytest.MonkeyPatch.context() as patch:
        path = os.pathsep.join(filter(None, [str(TIMED_PIPELINE), os.environ.get("PYTHONPATH")]))
        patch.setenv("PYTHONPATH", path)
        with hosts.cluster(tmp_path_factory.mktemp("cluster"), 2) as made:
            yield made


@pytest.fixture
def hands(cluster: Cluster, tmp_path: Path) -> Iterator[RemoteHands]:
    """Hands that have found both hosts."""
    with remote_hands(cluster.station, tmp_path, cluster=hosts.address()) as made:
        made.wait_for_room(2)
        yield made


def test_outcomes(hands: RemoteHands) -> None:
    """Two hosts make two pictures at a time, the same bytes for the same seed; an error and a death are told as on one
    machine; and a run is cancelled after its step."""
    for run in ("one", "two"):
        hands.begin(run, "4s")
    assert {"host1", "host2"} == {hands.outcome(run)["host"] for run in ("one", "two")}
    assert hands.outcome("one")["png"] == hands.outcome("two")["png"]
    assert hands.outcome("one")["host_class"] == hands.host("host1")["host_class"]

    hands.begin("failing", "fail")
    hands.begin("crashing", "crash")
    assert "compute" == hands.outcome("failing")["kind_of_error"]
    assert "Died" == hands.outcome("crashing")["kind"]
    assert "ended by SIGABRT" in hands.outcome("crashing")["message"]

    hands.begin("long", "600s", steps=1000)
    hands.wait_for_step("long", 2)
    hands.cancel("long")
    assert "cancelled" == hands.outcome("long")["kind_of_error"]
    hands.wait_for_room(2)


def test_killed_host(cluster: Cluster, hands: RemoteHands) -> None:
    """A run on a host that is killed is lost, the other host goes on, and the host is used again when it is back, under
    the same name."""
    for run in ("one", "two"):
        hands.begin(run, "600s", steps=1000)
        hands.wait_for_step(run)
    victim = cluster.machines[hands.host_of("one")]

    victim.kill()

    assert "HostLost" == hands.outcome("one")["kind"]
    assert victim.name == hands.outcome("one")["host"]
    victim.boot()
    victim.start_ray()
    victim.wait_for_ray()
    hands.begin("three", "0s")
    assert "two" not in hands.outcomes
    assert victim.name == hands.outcome("three")["host"]
    assert ["host1", "host2"] == [host["name"] for host in hands.state["hosts"]]


def test_killed_broker(cluster: Cluster, hands: RemoteHands) -> None:
    """When the broker dies, what is in hand is lost, its processes on the hosts end, and another broker goes on."""
    hands.begin("one", "600s", steps=1000)
    hands.wait_for_step("one")

    cluster.station.kill_processes(lambda words: "fluxdrop.cluster.broker" in words)

    assert "HostLost" == hands.outcome("one")["kind"]
    hands.wait_for_room(2)
    hands.begin("two", "0s")
    hands.begin("three", "0s")
    assert "Made" == hands.outcome("two")["kind"]
    assert "Made" == hands.outcome("three")["kind"]


def test_unused_hosts(
    cluster: Cluster, hands: RemoteHands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host with another version of fluxdrop, one with a full disk and one with a wrong token are not used, and it is
    told which and why; the others go on."""
    other, full, wrong = cluster.add(), cluster.add(), cluster.add()
    token = tmp_path / "token"
    token.write_text("f" * 64)
    token.chmod(0o600)
    wrong.member = replace(wrong.member, token=token)
    full.run("mkdir", "/run/small")
    full.run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/run/small")
    with monkeypatch.context() as patch:
        patch.setenv("TIMED_PIPELINE_VERSION", "0.0.1")
        other.start_ray()
    with monkeypatch.context() as patch:
        patch.setenv("TMPDIR", "/run/small")
        full.start_ray()

    def reason(host: str) -> str:
        return str(hands.host(host).get("reason", ""))

    def try_again() -> str:
        # As its unit does.
        if wrong.is_without_ray:
            wrong.start_ray()
        return reason(wrong.address)

    hands.wait(try_again, "the wrong token is noticed")
    hands.wait(lambda: "fluxdrop 0.0.1" in reason(other.name), "the other version is noticed")
    hands.wait(lambda: "disk is full" in reason(full.name), "the full disk is noticed")
    assert "token is wrong" in reason(wrong.address)
    assert "unused" == hands.host(wrong.address)["state"]
    assert "unused" == hands.host(other.name)["state"]
    assert "unused" == hands.host(full.name)["state"]
    assert 2 == hands.state["slots"]
    hands.begin("one", "0s")
    hands.begin("two", "0s")
    # One of them may make both, if the other's process is not there yet.
    assert {hands.outcome(run)["host"] for run in ("one", "two")} <= {"host1", "host2"}
    for host in (other, full, wrong):
        host.kill()
