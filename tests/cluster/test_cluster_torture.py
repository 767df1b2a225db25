"""Nothing is lost or made twice, whatever part of a cluster is lost and whenever."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import hosts
from support import cluster_torture
from support.torture import OF_CLUSTERS, OF_GENERATION

pytestmark = pytest.mark.slow

LOCAL = {"generation-begun", "generation-whole"}
"""Passed only where this machine makes the pictures."""


def test_events_are_complete() -> None:
    """A torture has every loss but those of the head and its agent, which take a minute, and every point that
    a picture from a cluster passes.
    """
    chosen = cluster_torture.events(12, random.Random(1))

    assert {*cluster_torture.POINTS} == {*OF_CLUSTERS, *OF_GENERATION} - LOCAL
    assert {*chosen} == {*cluster_torture.LOSSES, *cluster_torture.POINTS} - {"agent", "head"}


def test_torture(tmp_path: Path) -> None:
    """After a host was killed and one cut off, and the broker and, at each point that only a cluster has, the daemon,
    every input has one result, whole, of its last attempt."""
    hosts.needed()
    chosen = ["kill", "cut", "broker", *OF_CLUSTERS]
    survived: list[str] = []

    cluster_torture.torture(tmp_path, chosen, "fluxdrop", survived.append)

    assert chosen == survived
