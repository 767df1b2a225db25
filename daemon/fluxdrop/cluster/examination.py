"""Examine the hosts of a cluster: ``python -m fluxdrop.cluster.examination``, for ``fluxdrop doctor --cluster``.

It is a driver of Ray of its own, and so a process of its own. A `Question` in JSON is its standard input, an
`Examination` its standard output.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import msgspec

import fluxdrop
from fluxdrop.cluster import host_facts, host_report, ray_cluster
from fluxdrop.cluster.examined import Examination, ExaminedHost, HostReport, PictureReport, Question
from fluxdrop.cluster.host_report import digest_of
from fluxdrop.cluster.messages import decoded_facts
from fluxdrop.cluster.pipeline_digest import DigestMemory
from fluxdrop.cluster.pipeline_needs import Need, Offers
from fluxdrop.cluster.ray_cluster import Node
from fluxdrop.errors import FluxdropError
from fluxdrop.provision.find import data_dir

_ASK_SECONDS = 60.0
_PICTURE_SECONDS = 180.0
_CLOCK_TRIES = 5


def main() -> None:
    """Answer the question on standard input."""
    # What libraries print is not the answer.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    try:
        ray_cluster.join(question.address)
        found = asyncio.run(_examine(question))
    except FluxdropError as error:
        found = Examination(message=error.message, hint=error.hint)
    answer.write(msgspec.json.encode(found))
    answer.flush()
    # What Ray does at an ordinary exit can take long.
    os._exit(0)


async def _examine(question: Question) -> Examination:
    found = Examination()
    needs = _needs(question, found)
    nodes = [node for node in ray_cluster.nodes() if node.is_living_host]
    asked = msgspec.json.encode(needs)
    hosts = await asyncio.gather(*(_examine_host(node, asked) for node in nodes))
    found.hosts = sorted(hosts, key=lambda host: (host.name, host.address))
    return found


def _needs(question: Question, found: Examination) -> dict[str, Need]:
    """Return what the root's pipelines are, by name; note their digests, and those that cannot be read."""
    memory = DigestMemory(data_dir() / "digests.json")
    offers, needs = Offers(memory), {}
    for name, table in question.pipelines.items():
        try:
            needs[name] = offers.of_run(table, []).source
            found.digests[name] = digest_of(needs[name], memory)
        except FluxdropError as error:
            found.unreadable[name] = error.message
    return needs


async def _examine_host(node: Node, needs: bytes) -> ExaminedHost:
    host = ExaminedHost(name=node.hostname, address=node.address, gpus=node.gpus)
    try:
        facts = await _ask(host_facts.facts, node, fluxdrop.__version__, b"{}")
        host.facts = decoded_facts(facts)
        if host.facts.version != fluxdrop.__version__:
            # It may not even have what is asked next.
            return host
        host.report = msgspec.json.decode(
            await _ask(host_report.report, node, needs), type=HostReport
        )
        host.clock_seconds = await _clock(node)
        host.picture = await _picture(node)
    except TimeoutError:
        host.problem = f"It did not answer within {_ASK_SECONDS:g} s"
    except Exception as error:
        host.problem = f"fluxdrop does not run there: {ray_cluster.first_line(error)}"
    return host


async def _picture(node: Node) -> PictureReport | None:
    """Have the host make a picture; return None if its GPUs are in use, at once or as soon as they were found free."""
    if node.gpus and ray_cluster.free_gpus(node.id) < 1:
        return None
    try:
        made = await _ask(
            host_report.picture, node, gpus=min(node.gpus, 1), seconds=_PICTURE_SECONDS
        )
    except TimeoutError:
        if node.gpus and ray_cluster.free_gpus(node.id) < 1:
            return None
        return PictureReport(problem=f"It takes longer than {_PICTURE_SECONDS:g} s")
    return msgspec.json.decode(made, type=PictureReport)


async def _clock(node: Node) -> float:
    """Return how many seconds the host's clock is ahead, from the quickest of a few questions."""
    offsets: list[tuple[float, float]] = []
    for _ in range(_CLOCK_TRIES):
        before = time.time()
        there = await _ask(host_report.clock, node)
        after = time.time()
        offsets.append((after - before, there - (before + after) / 2))
    return min(offsets)[1]


async def _ask(
    function: Any, node: Node, *values: object, gpus: int = 0, seconds: float = _ASK_SECONDS
) -> Any:
    """Call *function* on the host *node*. Raise TimeoutError, or what Ray does."""
    return await asyncio.wait_for(
        ray_cluster.remote_task(function, node.id, gpus).remote(*values), seconds
    )


if __name__ == "__main__":
    main()
