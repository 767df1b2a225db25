"""The metrics of a cluster. Without one there are none."""

from __future__ import annotations

import re
from collections import Counter as Counts
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fluxdrop.generate.hands import HostState, HostStatus, attempts_lost, dispatch_seconds
from fluxdrop.processes import child

_STATES: tuple[HostState, ...] = ("ready", "busy", "unused", "lost")
# A run is usually with a host within milliseconds; it takes longer where the host has to start a process first.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_MAX_REASON = 60
_ID = re.compile("[0-9a-f]{16,}")


class ClusterMetrics:
    """What is counted of a cluster's hosts. The main loop's thread uses it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Add the metrics to *registry*."""
        self._hosts = Gauge(
            "fluxdrop_hosts", "Hosts of the cluster, by state", ["state"], registry=registry
        )
        self._pictures = Counter(
            "fluxdrop_pictures",
            "Pictures of a host that came through",
            ["host"],
            registry=registry,
        )
        self._attempts_lost = Counter(
            "fluxdrop_attempts_lost",
            "Attempts at a picture that were lost with a host or the way to it",
            ["host", "reason"],
            registry=registry,
        )
        self._restarts = Counter(
            "fluxdrop_broker_restarts",
            "Times that the process between the daemon and the cluster was replaced",
            registry=registry,
        )
        self._dispatch = Histogram(
            "fluxdrop_dispatch_seconds",
            "How long it took until a run was with a host",
            buckets=_SECONDS,
            registry=registry,
        )
        self._counted: Counts[tuple[str, str]] = Counts()
        self._counted_restarts = 0

    def count(self, host: str) -> None:
        """Count a picture that *host* made."""
        self._pictures.labels(host).inc()

    def update(self, hosts: list[HostStatus]) -> None:
        """Set the states of the *hosts*, and count what happened since the last call."""
        states = Counts(host.state for host in hosts)
        for state in _STATES:
            self._hosts.labels(state).set(states[state])
        lost: Counts[tuple[str, str]] = Counts()
        for (host, reason), times in attempts_lost.copy().items():
            lost[host, _in_general(reason)] += times
        for key, times in (lost - self._counted).items():
            self._attempts_lost.labels(*key).inc(times)
        self._counted = lost
        restarts = max(0, child.starts["broker"] - 1)
        self._restarts.inc(restarts - self._counted_restarts)
        self._counted_restarts = restarts
        with suppress(IndexError):
            while True:
                self._dispatch.observe(dispatch_seconds.popleft())


def _in_general(reason: str) -> str:
    """Return *reason* without what differs each time, such as free bytes and Ray's ids, of which there is no end."""
    return _ID.sub("ID", reason.partition(":")[0])[:_MAX_REASON]
