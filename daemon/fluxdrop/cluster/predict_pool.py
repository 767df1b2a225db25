"""The hosts that run models for a station, and which of them gets what. Only the broker uses this: it imports Ray."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError

import fluxdrop
from fluxdrop.cluster import ray_cluster
from fluxdrop.cluster.pipeline_transfer import StationContents
from fluxdrop.cluster.predict_worker import Failed, Opened, OpenOrder, PredictWorker, Reply
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError, Outage
from fluxdrop.predict.engine import EngineDown, EngineInfo
from fluxdrop.processes.child import ChildDied

_POLL_SECONDS = 0.5
_AGAIN_SECONDS = 30.0
_PAUSE_SECONDS = 5.0
_MARGIN_SECONDS = 15.0
_MAX_LOSSES = 3
"""How many hosts may be lost over the same pictures before these are the cause."""


@dataclass(eq=False)
class _Model:
    """A model that was opened, as `OpenOrder` says."""

    order: OpenOrder
    info: EngineInfo | None = None
    """What runs it: hosts on which another engine would are not used."""


@dataclass(eq=False)
class _Host:
    """A host with its actor; what is known of each model on it is by the bundle's digest."""

    name: str
    actor: Any
    opening: dict[str, Any] = field(default_factory=dict)
    """Ray's references to answers that are awaited."""
    ready: dict[str, EngineInfo] = field(default_factory=dict)
    problems: dict[str, tuple[float, Failed]] = field(default_factory=dict)
    """Why it cannot run a model, with the moment at which it is asked again."""


class StillOpening(Outage):
    """Hosts open the model, and none has it yet."""


class PredictPool:
    """Opens models on all hosts of the cluster, and divides batches among them. One thread may use it.

    The cluster has to be joined.
    """

    def __init__(self) -> None:
        self._contents = StationContents()
        self._hosts: dict[str, _Host] = {}
        """By the ids of their nodes."""
        self._models: dict[str, _Model] = {}
        self._paused: dict[str, float] = {}
        """Until when nodes get no actor, as their last one was lost while it opened a model."""

    def open(self, folder: Path, settings: Settings) -> tuple[str, EngineInfo, list[str]]:
        """Have all hosts open the bundle in *folder*; return at once if one has it.

        Hosts that need longer, or come later, are used as soon as they have it.

        Returns:
            The digest by which `predict` knows the model, what runs it, and the names of the hosts that have it.

        Raises:
            StillOpening: No host has it yet. Call this again.
            EngineDown: No host can have it at the moment.
            ChildDied: The engine's process died on each host.
            FluxdropError: It cannot be run.
        """
        manifest = self._contents.of_bundle(folder)
        digest = manifest.digest
        if digest not in self._models:
            order = OpenOrder(version=fluxdrop.__version__, manifest=manifest, settings=settings)
            self._models[digest] = _Model(order)
        try:
            info = self._wait_for_host(digest, _POLL_SECONDS)
            return digest, info, sorted(host.name for host in self._fit(digest))
        except (EngineDown, StillOpening):
            raise
        except FluxdropError:
            self.close(digest)
            raise

    def predict(
        self, digest: str, batch: NDArray[np.float32]
    ) -> tuple[EngineInfo, NDArray[np.float32]]:
        """Run a model that was opened on *batch*, divided among the hosts that have it.

        What a lost host had is done by another one, unless host after host is lost over it.

        Returns:
            What ran it, and the outputs.

        Raises:
            EngineDown: No host can at the moment.
            ChildDied: The engine's process died of it on a host that lives, or several hosts were lost over it.
            FluxdropError: It would fail again.
        """
        if digest not in self._models:
            raise StillOpening("The model was not opened")
        limit = self._models[digest].order.settings.worker_call_seconds + _MARGIN_SECONDS
        info = self._wait_for_host(digest, limit)
        count = min(len(self._fit(digest)), len(batch))
        waiting = list(enumerate(np.array_split(batch, count)))
        running: dict[Any, tuple[_Host, int, NDArray[np.float32], float]] = {}
        outputs: dict[int, NDArray[np.float32]] = {}
        losses: Counter[int] = Counter()
        while waiting or running:
            busy = [host for host, *_ in running.values()]
            for host in self._fit(digest):
                if waiting and host not in busy:
                    number, piece = waiting.pop()
                    answer = host.actor.predict.remote(digest, piece)
                    running[answer] = (host, number, piece, time.monotonic())
            if not running:
                info = self._wait_for_host(digest, limit)
                continue
            done, _ = ray.wait(list(running), timeout=_POLL_SECONDS)
            late = [one for one, (*_, begun) in running.items() if time.monotonic() - begun > limit]
            for answer in {*done, *late}:
                host, number, piece, _begun = running.pop(answer)
                result = self._result(host, digest, answer if answer in done else None)
                if result is None:
                    waiting.append((number, piece))
                    losses[number] += host not in self._hosts.values()
                    if losses[number] > _MAX_LOSSES:
                        raise ChildDied(
                            f"{losses[number]} hosts were lost over it, the last one was {host.name}"
                        )
                else:
                    outputs[number] = result
            self._refresh()
        return info, np.concatenate([outputs[number] for number in range(count)])

    def close(self, digest: str) -> None:
        """Close a model on all hosts."""
        self._models.pop(digest, None)
        for host in self._hosts.values():
            host.actor.close.remote(digest)
            for known in (host.opening, host.ready, host.problems):
                known.pop(digest, None)

    def _wait_for_host(self, digest: str, seconds: float) -> EngineInfo:
        """Wait for *seconds* until a host has the model, and return what runs it. Raises what `open` does."""
        model = self._models[digest]
        deadline = time.monotonic() + seconds
        while True:
            self._refresh()
            if self._fit(digest):
                assert model.info is not None
                return model.info
            opening = [
                host.opening[digest] for host in self._hosts.values() if digest in host.opening
            ]
            if not opening:
                raise self._why_none(digest)
            if time.monotonic() > deadline:
                raise StillOpening("No host of the cluster has opened the model yet")
            ray.wait(opening, timeout=_POLL_SECONDS)

    def _fit(self, digest: str) -> list[_Host]:
        """Return the hosts on which the model is open, with the same engine on all of them."""
        model = self._models[digest]
        ready = [
            (host, _kind(host.ready[digest]))
            for host in self._hosts.values()
            if digest in host.ready
        ]
        kinds = [kind for _host, kind in ready]
        if kinds and (model.info is None or model.info not in kinds):
            model.info = kinds[0]
        return [host for host, kind in ready if kind == model.info]

    def _refresh(self) -> None:
        """Take note of hosts that came or went, and of what they opened; have them open what they have not."""
        nodes = {node.id: node for node in ray_cluster.nodes() if node.is_living_host}
        for gone in self._hosts.keys() - nodes.keys():
            del self._hosts[gone]
        now = time.monotonic()
        self._paused = {key: until for key, until in self._paused.items() if until > now}
        for node in nodes.values():
            if node.id not in self._hosts and node.id not in self._paused:
                actor = ray_cluster.remote_actor(PredictWorker, node.id, 0).remote()
                self._hosts[node.id] = _Host(node.hostname, actor)
        for host in list(self._hosts.values()):
            for digest, answer in list(host.opening.items()):
                if ray.wait([answer], timeout=0)[0]:
                    self._note_opened(host, digest, answer)
            for digest, model in self._models.items():
                again, _failed = host.problems.get(digest, (0.0, None))
                if digest not in host.opening and digest not in host.ready and now >= again:
                    order = msgspec.json.encode(model.order)
                    host.opening[digest] = host.actor.open.remote(order, self._contents.server)

    def _note_opened(self, host: _Host, digest: str, answer: Any) -> None:
        host.opening.pop(digest, None)
        nodes = [node for node, one in self._hosts.items() if one is host]
        reply, _outputs = self._answer(host, answer)
        if reply is None:
            # Another actor would fare no better at once.
            self._paused |= dict.fromkeys(nodes, time.monotonic() + _PAUSE_SECONDS)
        if isinstance(reply, Opened):
            host.ready[digest] = reply.info
            host.problems.pop(digest, None)
        elif isinstance(reply, Failed):
            host.problems[digest] = (time.monotonic() + _AGAIN_SECONDS, reply)

    def _result(self, host: _Host, digest: str, answer: Any | None) -> NDArray[np.float32] | None:
        """Return the outputs in *answer*; None if another host has to do the same.

        *answer* is None if it is late. Raises ChildDied or FluxdropError if the pictures are the cause.
        """
        if answer is None:
            self._lose(host, "it did not answer in time")
            return None
        reply, outputs = self._answer(host, answer)
        if isinstance(reply, Failed):
            if reply.why != "unfit":
                raise _error(host, reply)
            host.ready.pop(digest, None)
            host.problems[digest] = (time.monotonic() + _AGAIN_SECONDS, reply)
            return None
        return outputs

    def _answer(self, host: _Host, answer: Any) -> tuple[Reply | None, NDArray[np.float32] | None]:
        """Return a host's reply and the outputs with it; None if the host is lost."""
        try:
            reply, outputs = ray.get(answer)
        except RayError as error:
            self._lose(host, ray_cluster.first_line(error))
            return None, None
        return msgspec.json.decode(reply, type=Reply), outputs

    def _lose(self, host: _Host, reason: str) -> None:
        """Give up a host's actor; if its node lives, it gets another one."""
        print(f"the host {host.name} was lost: {reason}")
        ray_cluster.kill(host.actor)
        self._hosts = {key: one for key, one in self._hosts.items() if one is not host}

    def _why_none(self, digest: str) -> FluxdropError:
        """Return the error for a model that no host has open."""
        problems = [
            (host, host.problems[digest][1])
            for host in self._hosts.values()
            if digest in host.problems
        ]
        refused = [one for one in problems if one[1].why != "unfit"]
        if refused and len(refused) == len(self._hosts):
            return _error(*refused[0])
        reasons = " ".join(f"{host.name}: {failed.message}" for host, failed in problems)
        return EngineDown(
            f"No host of the cluster can run the model. {reasons or 'There is no host.'}",
            kind="cluster",
        )


def _kind(info: EngineInfo) -> EngineInfo:
    """Return what *info* says of the engine, and not of its process."""
    return msgspec.structs.replace(info, pid=None, note=None)


def _error(host: _Host, failed: Failed) -> FluxdropError:
    message = f"On {host.name}: {failed.message}"
    if failed.why == "died":
        return ChildDied(message, hint=failed.hint)
    return FluxdropError(message, hint=failed.hint, kind=failed.kind)
