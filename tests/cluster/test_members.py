"""Which hosts there are, as the nodes of Ray come and go."""

from __future__ import annotations

import asyncio

from fluxdrop.cluster.dispatcher import Dispatcher, Host
from fluxdrop.cluster.members import Members
from fluxdrop.cluster.messages import HostFacts, Join
from fluxdrop.cluster.ray_cluster import Node


def node(
    number: int, hostname: str = "one", address: str = "192.0.2.1", alive: bool = True
) -> Node:
    """A node of Ray with a GPU."""
    return Node(str(number) * 16, hostname, address, 25601, alive, 1, False)


class Watched:
    """What `Members` makes of one list of nodes after the other."""

    def __init__(self) -> None:
        join = Join(
            address="auto",
            most=0,
            hosts="any",
            host_class="",
            idle_seconds=600,
            pipelines={},
            default_pipeline="",
        )
        self.lost: list[str] = []
        self.dispatcher = Dispatcher(join)
        self.members = Members(join, self.dispatcher, 1, changed=lambda: None, lost=self._note_loss)

    def take(self, *nodes: Node) -> list[str]:
        """Return the names of the hosts that live, and their ids' first digits."""

        async def take() -> None:
            self.members._take(list(nodes))
            for task in self.members._asking.values():
                task.cancel()

        asyncio.run(take())
        return [f"{host.name} {host.id[0]}" for host in self.dispatcher.hosts.values()]

    def asked(self) -> int:
        """How many hosts are asked about themselves when the nodes are looked at once more."""
        host = next(iter(self.dispatcher.hosts.values()))

        async def take() -> int:
            self.members._have_asked(host)
            tasks = [task for task in self.members._asking.values() if not task.done()]
            for task in tasks:
                task.cancel()
            return len(tasks)

        return asyncio.run(take())

    def _note_loss(self, host: Host, reason: str) -> None:
        self.lost.append(f"{host.name} {host.id[0]}")
        assert reason


def test_come_and_gone() -> None:
    """A node with a GPU is a host, a station without one is not; one that died is lost, told so, and found again."""
    watched = Watched()
    station = node(9, "station", "192.0.2.9")._replace(gpus=0, is_station=True)
    assert ["one 1"] == watched.take(node(1), station)

    assert [] == watched.take(node(1, alive=False), station)

    assert ["one 1"] == watched.lost
    assert [("one", "lost")] == [(host.name, host.state) for host in watched.members.status()]
    assert ["one 2"] == watched.take(node(1, alive=False), node(2), station)
    assert [("one", "unused")] == [(host.name, host.state) for host in watched.members.status()]


def test_started_anew() -> None:
    """A node in the place of another one replaces it before Ray has noticed that the other is dead."""
    watched = Watched()
    watched.take(node(1))

    assert ["one 2"] == watched.take(node(1), node(2))
    assert ["one 2"] == watched.take(node(1), node(2))
    assert ["one 1"] == watched.lost


def test_unknown_which_is_newer() -> None:
    """If a broker finds two nodes in one place, the one that stays is the host in the end."""
    watched = Watched()
    watched.take(node(1), node(2))

    assert ["one 2"] == watched.take(node(1, alive=False), node(2))


def test_equal_hostnames() -> None:
    """Hosts with equal names are told apart by their addresses, also after each was away."""
    watched = Watched()
    first, second = node(1), node(2, address="192.0.2.2")
    assert ["one 1", "one (192.0.2.2) 2"] == watched.take(first, second)

    assert ["one (192.0.2.2) 2"] == watched.take(second)
    assert ["one (192.0.2.2) 2", "one 3"] == watched.take(second, node(3))


def test_asked_again() -> None:
    """A host that said that it can be used is asked again when its actors told that its disk is full, as it has none
    then that could tell that there is room; a reason has no control characters."""
    watched = Watched()
    watched.take(node(1))
    (host,) = watched.dispatcher.hosts.values()
    host.facts = HostFacts(version="1")
    assert 0 == watched.asked()

    host.facts = HostFacts(version="1", problem="\x1b[36mIts disk is full.")

    assert 1 == watched.asked()
    assert ["\N{REPLACEMENT CHARACTER}[36mIts disk is full."] == [
        one.reason for one in watched.members.status()
    ]
