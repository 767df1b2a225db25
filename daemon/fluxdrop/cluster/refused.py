"""Machines that connect to the head again and again and do not become hosts, as their token is wrong.

Ray does not say who was refused. Where the head is on this machine, the kernel's table of connections shows who tries:
whose connections are new each time. Those of a host that was lost stay in the table for minutes.
"""

from __future__ import annotations

import ipaddress
import struct
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_REMEMBERED_SECONDS = 120.0
_MIN_SIGHTINGS = 3
_MIN_SECONDS = 10.0
"""A host that starts is connected for as long before it belongs to the cluster."""

REASON = (
    "It connects to the head again and again and is no host yet: its token is wrong, it has another version of Ray or"
    " Python, or it is still starting; its own log tells."
)


class Refused:
    """Who was seen at the head. `look` is to be called every second or so.

    Args:
        port: The head's port.
        tables: The kernel's tables of TCP connections; see proc_pid_net(5).
    """

    def __init__(self, port: int, tables: Iterable[Path] = _TABLES) -> None:
        self._port = port
        self._tables = tuple(tables)
        self._seen: dict[str, deque[float]] = {}
        """When each address was seen with a new connection."""
        self._known: set[tuple[str, int]] = set()

    def look(self, members: set[str]) -> None:
        """Look who is connected; *members* are the addresses of the cluster's nodes."""
        moment = time.monotonic()
        connections = connected_to(self._port, self._tables)
        new, self._known = connections - self._known, connections
        for address in {address for address, _port in new} - members:
            self._seen.setdefault(address, deque(maxlen=100)).append(moment)
        oldest = moment - _REMEMBERED_SECONDS
        self._seen = {
            address: seen
            for address, seen in self._seen.items()
            if seen[-1] > oldest and address not in members
        }

    def addresses(self) -> list[str]:
        """Return the addresses of those that were refused, sorted."""
        return sorted(
            address
            for address, seen in self._seen.items()
            if len(seen) >= _MIN_SIGHTINGS and seen[-1] - seen[0] >= _MIN_SECONDS
        )


def connected_to(port: int, tables: Iterable[Path] = _TABLES) -> set[tuple[str, int]]:
    """Return the addresses and ports of other machines that have a connection to this machine's *port*."""
    found = set()
    for table in tables:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _number, local, remote = line.split()[:3]
            if int(local.rpartition(":")[2], 16) == port:
                address, _, their_port = remote.rpartition(":")
                found.add((_address(address), int(their_port, 16)))
    return {
        (str(one), their_port)
        for one, their_port in found
        if not one.is_loopback and not one.is_unspecified
    }


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address in a table: words of 32 bits in hex, each in the order of bytes of this machine."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
