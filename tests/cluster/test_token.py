"""Clusters that cannot be used: one that lets anybody in, and one that is not there."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import hosts
from fluxdrop.cluster.cluster_hands import ClusterHands
from fluxdrop.config import Settings
from support.daemons import PATIENCE
from support.remote_hands import remote_hands

pytestmark = pytest.mark.slow


def test_cluster_without_token(tmp_path: Path) -> None:
    """The hands do not join a cluster without token authentication, and say so."""
    hosts.needed()
    with hosts.network(tmp_path, 0) as made:
        station = made.station
        open_to_all = {**station.member.environment(), "RAY_AUTH_MODE": "disabled"}
        output = tmp_path / "ray.log"
        with output.open("wb") as log:
            ray = station.start(*station.member.command(), env=open_to_all, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + PATIENCE
            while "Ray runtime started" not in output.read_text():
                assert ray.poll() is None, output.read_text()
                assert time.monotonic() < deadline, output.read_text()
                time.sleep(0.1)
            with remote_hands(station, tmp_path, cluster=hosts.address()) as hands:
                hands.wait(lambda: "takes everybody" in str(hands.state["outage"]), "the refusal")
                assert 0 == hands.state["room"]
                assert "It is not used." in hands.state["outage"]
        finally:
            ray.kill()
            ray.wait()


@pytest.mark.skipif(not find_spec("ray"), reason="the extra 'cluster' is not installed")
def test_no_cluster() -> None:
    """Where there is no cluster, the hands say so, and have no room."""
    hands = ClusterHands(Settings(cluster="127.0.0.1:1"))
    deadline = time.monotonic() + PATIENCE
    try:
        while "127.0.0.1:1 cannot be reached" not in (hands.outage or ""):
            assert not hands.finished(0.05, lambda _run, _step, _steps: None)
            assert 0 == hands.room
            assert time.monotonic() < deadline, hands.outage
    finally:
        hands.close()
