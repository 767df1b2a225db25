"""Machines that the head refuses are found in the kernel's table of connections."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from fluxdrop.cluster import refused
from fluxdrop.cluster.refused import Refused, connected_to

HEAD = "  sl  local_address rem_address   st\n"
# 192.0.2.7 at port 25600, which is 0x6400, of a machine with little-endian words.
TRYING = "   0: 0A0200C0:6400 070200C0:C350 01 00000000:00000000\n"
AGAIN = [TRYING, TRYING.replace("C350", "C351"), TRYING.replace("C350", "C352")]
ELSEWHERE = "   1: 0A0200C0:6401 080200C0:C350 01 00000000:00000000\n"
LISTENING = "   2: 00000000:6400 00000000:0000 0A 00000000:00000000\n"
MAPPED = "   3: 0000000000000000FFFF00000A0200C0:6400 0000000000000000FFFF0000090200C0:C350 01\n"


def test_connections(tmp_path: Path) -> None:
    """Those connected to the port are found, by IPv4 and by IPv6."""
    (tmp_path / "tcp").write_text(HEAD + TRYING + ELSEWHERE + LISTENING)
    (tmp_path / "tcp6").write_text(HEAD + MAPPED)
    tables = (tmp_path / "tcp", tmp_path / "tcp6", tmp_path / "none")

    assert {("192.0.2.7", 50000), ("192.0.2.9", 50000)} == connected_to(25600, tables)


def test_own_connections() -> None:
    """The kernel's own tables are read; this machine is nobody else."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            assert set() == connected_to(port)


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was seen several times and is no member was refused; a host that was slow to start is not told."""
    monkeypatch.setattr(refused, "_MIN_SECONDS", 0.0)
    table = tmp_path / "tcp"
    seen = Refused(25600, [table])
    for line in AGAIN:
        assert [] == seen.addresses()
        table.write_text(HEAD + line)
        seen.look(set())
    assert ["192.0.2.7"] == seen.addresses()

    seen.look({"192.0.2.7"})

    assert [] == seen.addresses()


def test_lost_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that was lost, whose connections the kernel keeps for a while, was not refused."""
    monkeypatch.setattr(refused, "_MIN_SECONDS", 0.0)
    table = tmp_path / "tcp"
    table.write_text(HEAD + "".join(AGAIN))
    seen = Refused(25600, [table])
    seen.look({"192.0.2.7"})

    for _ in range(5):
        seen.look(set())

    assert [] == seen.addresses()


def test_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not try any more is forgotten."""
    monkeypatch.setattr(refused, "_MIN_SECONDS", 0.0)
    table = tmp_path / "tcp"
    seen = Refused(25600, [table])
    for line in AGAIN:
        table.write_text(HEAD + line)
        seen.look(set())
    table.write_text(HEAD)
    later = time.monotonic() + 1000
    monkeypatch.setattr(time, "monotonic", lambda: later)

    seen.look(set())

    assert [] == seen.addresses()
