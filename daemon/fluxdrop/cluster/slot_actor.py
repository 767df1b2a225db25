"""One actor on a host, as the broker uses it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

import fluxdrop
from fluxdrop.cluster import ray_cluster
from fluxdrop.cluster.dispatcher import Slot, SlotState
from fluxdrop.cluster.hand import Hand
from fluxdrop.cluster.messages import Pulse

PING_SECONDS = 0.5
"""How often the actor of a run is pinged: so late is the progress that is told."""
_IDLE_PING_SECONDS = 5.0
_SILENT_SECONDS = 30.0
"""After this without an answer to a ping, the host counts as lost, whatever Ray says of it."""

OnStep = Callable[[Slot, str, int, int], None]
"""Called with the slot, the run's id, the number of finished steps and that of all steps."""


class SlotActor:
    """The actor of a slot, from its start to its end."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._actor: Any = ray_cluster.remote_actor(
            Hand, slot.host.id, 1 if slot.host.gpus else 0
        ).remote()
        self._begun = asyncio.Event()
        """Set when a run begins, which ends the longer pause of an idle actor."""
        self.loss = ""
        """Why the actor was lost, once it was."""

    async def start(self) -> str:
        """Wait until the actor runs, which may take until its GPU is free; return why it cannot, or an empty string."""
        try:
            version = await self._actor.version.remote()
        except Exception as error:
            return self._lost(error)
        if version != fluxdrop.__version__:
            return f"it has another version: fluxdrop {version}, and this station {fluxdrop.__version__}"
        return ""

    async def ping_until_lost(self, on_step: OnStep) -> str:
        """Renew the actor's lease and tell each step of its runs, until it is lost; return why it is."""
        told = ("", 0, 0)
        while True:
            try:
                answer = await asyncio.wait_for(self._actor.ping.remote(), _SILENT_SECONDS)
                pulse = msgspec.json.decode(answer, type=Pulse)
            except Exception as error:
                return self._lost(error)
            step = (pulse.run, pulse.step, pulse.steps)
            if step != told and pulse.steps:
                on_step(self._slot, *step)
            told = step
            self._note_problem(pulse.problem)
            if self._slot.state is SlotState.BUSY:
                await asyncio.sleep(PING_SECONDS)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._begun.wait(), _IDLE_PING_SECONDS)
                self._begun.clear()

    async def run(self, order: bytes, server: Any) -> bytes:
        """Have a `RunOrder` made; return the packed outcome, or nothing if the actor was lost.

        *server* is the handle of the `PieceServer` with the station's files.
        """
        self._begun.set()
        try:
            answer: bytes = await self._actor.run.remote(order, server)
        except Exception as error:
            self._lost(error)
            return b""
        return answer

    async def cancel(self, run: str) -> None:
        """Have the actor end *run* after its current step. If it is lost, the pings will tell."""
        try:
            await asyncio.wait_for(self._actor.cancel.remote(run), _SILENT_SECONDS)
        except Exception as error:
            self._lost(error)

    def end(self) -> None:
        """End the actor at once."""
        ray_cluster.kill(self._actor)

    def _lost(self, error: Exception) -> str:
        self.loss = self.loss or ray_cluster.loss(error)
        return self.loss

    def _note_problem(self, problem: str) -> None:
        facts = self._slot.host.facts
        if facts is not None and facts.problem != problem:
            self._slot.host.facts = msgspec.structs.replace(facts, problem=problem)
