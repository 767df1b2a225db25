"""The hosts of the cluster: which there are, what they say of themselves, and what people are told of them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

import fluxdrop
from fluxdrop.cluster import host_facts, ray_cluster, refused
from fluxdrop.cluster.dispatcher import Dispatcher, Host, Slot, SlotState
from fluxdrop.cluster.messages import HostFacts, Join, decoded_facts, shown
from fluxdrop.cluster.pipeline_needs import Need, outline_of
from fluxdrop.cluster.ray_cluster import Node
from fluxdrop.cluster.refused import Refused
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.hands import HostState, HostStatus
from fluxdrop.timestamps import now

POLL_SECONDS = 1.0
HEAD_SILENT_SECONDS = 5.0
"""After this, the daemon is told that the head does not answer."""
HEAD_LOST_SECONDS = 40.0
"""After this, the broker ends. Ray itself ends its driver after about 60 s."""
_HEAD_LOST_IDLE_SECONDS = 10.0
"""The same, where no run would be lost with it."""
_ASK_SECONDS = 60.0
_ASK_AGAIN_SECONDS = 30.0
_REMEMBERED_SECONDS = 24 * 3600.0
_RATE_RUNS = 20


class Members:
    """Follows the nodes of the Ray cluster, for a dispatcher that is told of each host."""

    def __init__(
        self,
        join: Join,
        dispatcher: Dispatcher,
        head_port: int,
        *,
        changed: Callable[[], None],
        lost: Callable[[Host, str], None],
    ) -> None:
        """Follow nothing yet; see `watch`.

        Args:
            join: The root's pipelines.
            dispatcher: Gets the hosts that live.
            head_port: The port of the head.
            changed: Called when there may be something new to do or to tell.
            lost: Called with a host that is gone, and why.
        """
        self._join = join
        self._dispatcher = dispatcher
        self._changed = changed
        self._lost = lost
        self._names: dict[str, tuple[str, str]] = {}
        """The hostname and address behind each name."""
        self._seen: dict[str, str] = {}
        """When each host was last known to live, by name."""
        self._gone: dict[str, tuple[float, HostStatus]] = {}
        """The hosts that were lost, by name, with the moment."""
        self._rates: dict[str, deque[tuple[float, int]]] = {}
        """The seconds and the pictures of the last runs, by the host's name."""
        self._refused = Refused(head_port)
        self._replaced: set[str] = set()
        """The ids of nodes in whose place is another one, though Ray may not have noticed yet."""
        self._asking: dict[str, asyncio.Task[None]] = {}
        self.silent_since: float | None = None
        """Since when the head has not answered, if it does not."""

    async def watch(self) -> None:
        """Follow the nodes, for ever.

        Raises:
            FluxdropError: The head does not answer any more.
        """
        loop = asyncio.get_running_loop()
        while True:
            begun = time.monotonic()
            answer = loop.run_in_executor(None, ray_cluster.nodes)
            while not answer.done():
                await asyncio.wait({answer}, timeout=POLL_SECONDS)
                waited = time.monotonic() - begun
                if not answer.done() and waited > HEAD_SILENT_SECONDS:
                    self.silent_since = self.silent_since or begun
                    self._changed()
                if waited > (HEAD_LOST_SECONDS if self._is_busy() else _HEAD_LOST_IDLE_SECONDS):
                    raise _head_lost("it does not answer")
            try:
                nodes = answer.result()
            except Exception as error:
                raise _head_lost(ray_cluster.first_line(error)) from error
            self.silent_since = None
            self._take(nodes)
            await asyncio.sleep(POLL_SECONDS)

    def note_run(self, host: Host, seconds: float, pictures: int) -> None:
        """Note that *host* made *pictures* in *seconds*."""
        self._rates.setdefault(host.name, deque(maxlen=_RATE_RUNS)).append((seconds, pictures))

    def note_unfit(self, host: Host, pipeline: str, reason: str) -> None:
        """Note that *host* cannot have what a run of *pipeline* needs; it is asked again after a while."""
        facts = host.facts or HostFacts(version=fluxdrop.__version__)
        host.facts = msgspec.structs.replace(facts, missing={**facts.missing, pipeline: reason})
        host.problem = self._problem(host.facts)
        if task := self._asking.get(host.id):
            task.cancel()
        self._asking[host.id] = asyncio.create_task(self._ask(host, pause=_ASK_AGAIN_SECONDS))

    def status(self) -> list[HostStatus]:
        """Return what is to be told of every host, in the order of their names."""
        living = [self._living(host) for host in self._dispatcher.hosts.values()]
        living += [
            HostStatus(name=address, state="unused", reason=refused.REASON)
            for address in self._refused.addresses()
        ]
        names = {host.name for host in living}
        gone = [status for name, (_moment, status) in self._gone.items() if name not in names]
        return sorted([*living, *gone], key=lambda host: host.name)

    def why_none_usable(self) -> str:
        """Return, as a sentence, why no host can be used."""
        reasons = [
            f"{host.name}: {host.reason}"
            for host in self.status()
            if host.state in ("unused", "lost")
        ]
        if not reasons:
            return "The cluster has no host but the station, which has no GPU."
        return f"No host of the cluster can be used. {' '.join(reasons)}"

    def _take(self, nodes: list[Node]) -> None:
        """Compare the *nodes* of the cluster with the hosts, and act on what changed."""
        alive = {node.id: node for node in self._newest(nodes)}
        for host in [host for host in self._dispatcher.hosts.values() if host.id not in alive]:
            self._remove(host)
        for node in alive.values():
            host = self._dispatcher.hosts.get(node.id) or self._add(node)
            self._seen[host.name] = now()
            self._have_asked(host)
        self._refused.look({node.address for node in nodes if node.alive})
        forgotten = time.monotonic() - _REMEMBERED_SECONDS
        self._gone = {name: one for name, one in self._gone.items() if one[0] > forgotten}

    def _have_asked(self, host: Host) -> None:
        """Have *host* asked about itself, unless that goes on, or it said that it can be used and that is still so."""
        task = self._asking.get(host.id)
        if task is None:
            self._asking[host.id] = asyncio.create_task(self._ask(host))
        elif task.done() and host.unfit:
            # Such as because of a full disk, of which its actors told; now it has none that could tell more.
            self._asking[host.id] = asyncio.create_task(self._ask(host, pause=_ASK_AGAIN_SECONDS))

    def _newest(self, nodes: list[Node]) -> Iterator[Node]:
        """Yield the hosts among *nodes*; of several at one address and port only that which came last lives."""
        places: dict[tuple[str, int], list[Node]] = {}
        for node in nodes:
            if node.is_living_host:
                places.setdefault((node.address, node.port), []).append(node)
        for place in places.values():
            left = [node for node in place if node.id not in self._replaced] or place
            newest = next((node for node in left if node.id not in self._dispatcher.hosts), left[0])
            self._replaced |= {node.id for node in place}
            self._replaced.discard(newest.id)
            yield newest

    def _is_busy(self) -> bool:
        return any(
            slot.run is not None for host in self._dispatcher.hosts.values() for slot in host.slots
        )

    def _add(self, node: Node) -> Host:
        host = Host(node.id, self._name(node), node.gpus)
        host.slots = [Slot(host) for _ in range(node.gpus or 1)]
        self._dispatcher.hosts[node.id] = host
        self._gone.pop(host.name, None)
        self._changed()
        return host

    def _remove(self, host: Host) -> None:
        status = msgspec.structs.replace(
            self._living(host), state="lost", reason="It was switched off or cannot be reached."
        )
        self._gone[host.name] = (time.monotonic(), status)
        del self._dispatcher.hosts[host.id]
        if task := self._asking.pop(host.id, None):
            task.cancel()
        self._lost(host, "the host was lost")
        self._changed()

    async def _ask(self, host: Host, pause: float = 0.0) -> None:
        """Ask *host* about itself after *pause* seconds, again and again until it can have everything."""
        await asyncio.sleep(pause)
        task = ray_cluster.remote_task(host_facts.facts, host.id)
        loop = asyncio.get_running_loop()
        while True:
            # They are on disks that may be slow.
            outlines = await loop.run_in_executor(None, self._outlines)
            try:
                answer = await asyncio.wait_for(
                    task.remote(fluxdrop.__version__, msgspec.json.encode(outlines)),
                    _ASK_SECONDS,
                )
                host.facts = decoded_facts(answer)
                host.problem = self._problem(host.facts)
            except TimeoutError:
                host.problem = "It does not answer."
            except Exception as error:
                host.problem = f"fluxdrop does not run there: {ray_cluster.first_line(error)}."
            self._changed()
            if host.facts and not host.unfit and not host.facts.missing:
                return
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

    def _problem(self, facts: HostFacts) -> str:
        if facts.version != fluxdrop.__version__:
            return f"It has fluxdrop {facts.version}, and this station {fluxdrop.__version__}."
        reason = facts.missing.get(self._join.default_pipeline)
        if reason:
            return f"It cannot have the pipeline {self._join.default_pipeline}: {reason}"
        return ""

    def _outlines(self) -> dict[str, Need]:
        outlines = {name: outline_of(table) for name, table in self._join.pipelines.items()}
        return {name: outline for name, outline in outlines.items() if outline is not None}

    def _living(self, host: Host) -> HostStatus:
        reason = self._dispatcher.why_unused(host)
        state: HostState = "ready"
        if reason:
            state = "unused"
        elif any(slot.state is SlotState.BUSY for slot in host.slots):
            state = "busy"
        facts = host.facts or HostFacts(version="")
        return HostStatus(
            name=host.name,
            state=state,
            # Some of it is from the host, or a message of Ray's, which has colours.
            reason=shown(reason),
            gpu=facts.gpu,
            host_class=facts.host_class,
            version=facts.version,
            slots=len(host.slots),
            pictures_per_hour=self._pictures_per_hour(host.name),
            last_seen=self._seen.get(host.name, ""),
        )

    def _pictures_per_hour(self, name: str) -> float | None:
        runs = self._rates.get(name)
        seconds = sum(one for one, _pictures in runs) if runs else 0.0
        if not runs or not seconds:
            return None
        return round(3600 * sum(pictures for _seconds, pictures in runs) / seconds, 1)

    def _name(self, node: Node) -> str:
        """Return a name for *node* that no other host has, and that it had before if it was away."""
        living = {host.name for host in self._dispatcher.hosts.values()}
        machine = (node.hostname, node.address)
        candidates = (
            node.hostname,
            f"{node.hostname} ({node.address})",
            f"{node.hostname} ({node.id[:8]})",
        )
        name = next(
            (
                one
                for one in candidates
                if one not in living and self._names.get(one, machine) == machine
            ),
            candidates[-1],
        )
        self._names[name] = machine
        return name


def _head_lost(reason: str) -> FluxdropError:
    return FluxdropError(f"The head of the Ray cluster was lost: {reason}", kind="cluster")
