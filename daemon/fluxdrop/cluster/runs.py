"""The broker's work: runs in, outcomes out, with an actor for each slot that is needed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import msgspec

from fluxdrop.cluster.dispatcher import Dispatcher, Host, Slot, SlotState, Waiting
from fluxdrop.cluster.members import Members
from fluxdrop.cluster.messages import (
    ClusterState,
    Join,
    LostOutcome,
    MadeOutcome,
    RefusedOutcome,
    RunOrder,
    RunOutcome,
    Sent,
    pack_outcome,
    unpack_outcome,
)
from fluxdrop.cluster.pipeline_transfer import StationContents
from fluxdrop.cluster.slot_actor import SlotActor
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.failures import cancelled
from fluxdrop.generate.messages import StepProgress
from fluxdrop.processes.wire import MAX_PAYLOAD, Frame, FrameKind, WireError

_HEARTBEAT_SECONDS = 2.0
_GRACE_SECONDS = 15.0
"""How long hosts may take to come before it is an outage that none can be used."""
_FIRST_PAUSE_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 30.0


class Link(Protocol):
    """The frames to and from the daemon."""

    def send(self, kind: FrameKind, request: int, payload: bytes) -> None:
        """Send a frame, without waiting."""

    def receive(self) -> Frame:
        """Wait for the next frame."""

    @property
    def is_behind(self) -> bool:
        """Whether the daemon has not read for long, such as while its disk is full."""


class Runs:
    """Takes runs from the daemon, has the hosts make them, and tells the daemon how each ended."""

    def __init__(self, join: Join, link: Link, head_port: int) -> None:
        self._link = link
        self._dispatcher = Dispatcher(join)
        self._members = Members(
            join, self._dispatcher, head_port, changed=self._wake, lost=self._lose_host
        )
        self._actors: dict[Slot, SlotActor] = {}
        self._failures: dict[Slot, int] = {}
        """How often in a row a slot's actor failed."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancelled: set[int] = set()
        """The numbers of the runs that hosts have and that were cancelled."""
        self._contents = StationContents()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._joined_at = time.monotonic()
        self._told: tuple[float, ClusterState] | None = None
        self._ended: asyncio.Future[None]
        self._woken: asyncio.Event

    def serve(self) -> None:
        """Serve until STOP.

        Raises:
            FluxdropError: Kind ``cluster``: the head was lost.
        """
        # Not asyncio.run, which would wait for a thread that asks a head that does not answer.
        asyncio.new_event_loop().run_until_complete(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._ended, self._woken = loop.create_future(), asyncio.Event()

        def read() -> None:
            while True:
                loop.call_soon_threadsafe(self._take, self._link.receive())

        threading.Thread(target=read, name="reader", daemon=True).start()
        self._spawn(self._members.watch())
        self._spawn(self._turns())
        await self._ended
        for slot in list(self._actors):
            self._discard(slot)

    def _take(self, frame: Frame) -> None:
        """Act on a frame from the daemon."""
        try:
            match frame.kind:
                case FrameKind.RUN:
                    order = msgspec.json.decode(frame.payload, type=RunOrder)
                    waiting = Waiting(frame.request, order, time.monotonic())
                    self._dispatcher.waiting.append(waiting)
                    self._spawn(self._prepare(waiting))
                case FrameKind.CANCEL:
                    self._cancel(frame.request)
                case FrameKind.STOP:
                    self._end()
                case _:
                    raise WireError(f"the broker cannot answer {frame.kind.name}")
        except Exception as error:
            self._end(error)
        self._wake()

    async def _prepare(self, waiting: Waiting) -> None:
        """Find out what a run needs, for which its pipeline may have to be read, and offer that to the hosts."""
        order = waiting.order
        files = [file for file, _weight in order.loras]
        try:
            needs = await asyncio.get_running_loop().run_in_executor(
                self._reader, self._contents.of_run, order.load.table, files
            )
        except Exception as error:
            # It must not end the broker, as it would end each one to which the run is given.
            if waiting not in self._dispatcher.waiting:
                return
            self._dispatcher.waiting.remove(waiting)
            if not isinstance(error, FluxdropError):
                message = f"The pipeline {order.load.name} cannot be read: {type(error).__name__}: {error}"
                self._refuse(waiting, message, "", "pipeline")
            elif error.kind == "cluster":
                # That is not the run's fault.
                lost = LostOutcome(run=order.id, host="", reason=error.message)
                self._link.send(FrameKind.OUTCOME, waiting.number, pack_outcome(lost))
            else:
                self._refuse(waiting, error.message, error.hint, error.kind)
            return
        self._dispatcher.add_needs(waiting.number, needs)
        self._wake()

    def _cancel(self, number: int) -> None:
        for waiting in list(self._dispatcher.waiting):
            if waiting.number == number:
                self._dispatcher.waiting.remove(waiting)
                self._refuse_cancelled(waiting)
        for slot, actor in self._actors.items():
            if slot.run and slot.run.number == number:
                self._cancelled.add(number)
                self._spawn(actor.cancel(slot.run.order.id))

    async def _turns(self) -> None:
        """Do what there is to do whenever something happened, and at least every two seconds."""
        while True:
            self._dispatch()
            self._tell()
            try:
                await asyncio.wait_for(self._woken.wait(), 1.0)
            except TimeoutError:
                continue
            self._woken.clear()

    def _dispatch(self) -> None:
        for waiting, slot in self._dispatcher.assign():
            self._spawn(self._make(slot, waiting))
        for waiting, reasons in self._dispatcher.hopeless():
            message = f"No host can have the pipeline {waiting.order.load.name}. {reasons}"
            self._refuse(waiting, message, "", "pipeline")
        for slot in self._dispatcher.to_stop():
            self._discard(slot)
            slot.become(SlotState.EMPTY)
        for slot in self._dispatcher.to_start():
            self._actors[slot] = actor = SlotActor(slot)
            self._spawn(self._keep(slot, actor))

    async def _keep(self, slot: Slot, actor: SlotActor) -> None:
        """Start *actor*, and ping it for as long as it is the slot's."""
        reason = await actor.start()
        if self._actors.get(slot) is actor:
            slot.trouble = reason
        if not reason and self._actors.get(slot) is actor:
            slot.pipeline = ""
            slot.become(SlotState.IDLE)
            self._failures.pop(slot, None)
            self._wake()
            reason = await actor.ping_until_lost(self._note_step)
        if self._actors.get(slot) is actor:
            self._lose(slot, reason)

    async def _make(self, slot: Slot, waiting: Waiting) -> None:
        """Have the slot's actor make a run, and tell the daemon how it ended."""
        actor, host = self._actors[slot], slot.host
        facts = host.facts
        sent = Sent(host=host.name, host_class=facts.host_class if facts else "")
        self._link.send(FrameKind.SENT, waiting.number, msgspec.json.encode(sent))
        begun = time.monotonic()
        order = msgspec.json.encode(waiting.order)
        payload = await actor.run(order, self._contents.server)
        is_cancelled = waiting.number in self._cancelled
        self._cancelled.discard(waiting.number)
        if slot.run is not waiting:
            # The host was given up meanwhile, and the daemon knows.
            return
        outcome = _outcome_in(payload)
        if outcome is None or outcome.run != waiting.order.id:
            self._lose(slot, actor.loss or "its answer was malformed")
            return
        slot.run = None
        slot.become(SlotState.IDLE)
        if isinstance(outcome, LostOutcome) and outcome.is_unfit:
            self._members.note_unfit(host, waiting.order.load.name, outcome.reason)
            if is_cancelled:
                self._refuse_cancelled(waiting)
            else:
                waiting = waiting.with_unfit(host.id, outcome.reason)
                self._dispatcher.waiting.appendleft(waiting)
                self._spawn(self._prepare(waiting))
            self._wake()
            return
        if isinstance(outcome, LostOutcome):
            payload = pack_outcome(msgspec.structs.replace(outcome, host=host.name))
            self._link.send(FrameKind.OUTCOME, waiting.number, payload)
            self._lose(slot, outcome.reason)
            return
        if isinstance(outcome, MadeOutcome):
            self._members.note_run(host, time.monotonic() - begun, len(outcome.sha256))
        self._link.send(FrameKind.OUTCOME, waiting.number, payload)
        self._wake()

    def _note_step(self, slot: Slot, run: str, step: int, steps: int) -> None:
        if slot.run and slot.run.order.id == run and not self._link.is_behind:
            progress = msgspec.json.encode(StepProgress(step, steps))
            self._link.send(FrameKind.PROGRESS, slot.run.number, progress)

    def _lose_host(self, host: Host, reason: str) -> None:
        for slot in host.slots:
            self._lose(slot, reason)
            slot.become(SlotState.LOST)

    def _lose(self, slot: Slot, reason: str) -> None:
        """Give up the slot's actor, and its run if it has one; another actor is started after a pause."""
        self._discard(slot)
        run, slot.run = slot.run, None
        if run is not None:
            lost = LostOutcome(run=run.order.id, host=slot.host.name, reason=reason)
            self._link.send(FrameKind.OUTCOME, run.number, pack_outcome(lost))
        failures = self._failures.get(slot, 0)
        self._failures[slot] = failures + 1
        pause = min(_FIRST_PAUSE_SECONDS * 2**failures, _MAX_PAUSE_SECONDS)
        slot.not_before = time.monotonic() + pause
        slot.become(SlotState.EMPTY)
        self._wake()

    def _discard(self, slot: Slot) -> None:
        """End the slot's actor, if it has one. It is never used again."""
        actor = self._actors.pop(slot, None)
        if actor is not None:
            actor.end()

    def _refuse_cancelled(self, waiting: Waiting) -> None:
        error = cancelled()
        self._refuse(waiting, error.message, error.hint, error.kind)

    def _refuse(self, waiting: Waiting, message: str, hint: str, kind: str) -> None:
        refused = RefusedOutcome(run=waiting.order.id, message=message, hint=hint, kind=kind)
        self._link.send(FrameKind.OUTCOME, waiting.number, pack_outcome(refused))

    def _tell(self) -> None:
        """Tell the daemon about the cluster if that changed, or if it was long ago."""
        if self._link.is_behind:
            return
        capacity = self._dispatcher.capacity()
        state = ClusterState(
            outage=self._outage(capacity),
            slots=capacity,
            host_class=self._dispatcher.host_class,
            hosts=self._members.status(),
        )
        moment = time.monotonic()
        if (
            self._told
            and _same(self._told[1], state)
            and moment - self._told[0] < _HEARTBEAT_SECONDS
        ):
            return
        self._told = (moment, state)
        self._link.send(FrameKind.CLUSTER, 0, msgspec.json.encode(state))

    def _outage(self, capacity: int) -> str | None:
        if self._members.silent_since is not None:
            return "The head of the Ray cluster does not answer."
        if self._dispatcher.usable() or capacity:
            return None
        if time.monotonic() - self._joined_at < _GRACE_SECONDS:
            return None
        return self._members.why_none_usable()

    def _wake(self) -> None:
        self._woken.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* beside the rest; an error in it ends the broker."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._end(error)

    def _end(self, error: BaseException | None = None) -> None:
        if self._ended.done():
            return
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)


def _outcome_in(payload: bytes) -> RunOutcome | None:
    """Return the outcome in what came from a host; None if it is none, or too large to be sent on."""
    if not isinstance(payload, bytes) or not 0 < len(payload) <= MAX_PAYLOAD:
        return None
    try:
        return unpack_outcome(payload)[0]
    except WireError:
        return None


def _same(before: ClusterState, after: ClusterState) -> bool:
    """Return whether nothing changed but when the hosts were last seen."""

    def essence(state: ClusterState) -> ClusterState:
        hosts = [msgspec.structs.replace(host, last_seen="") for host in state.hosts]
        return msgspec.structs.replace(state, hosts=hosts)

    return essence(before) == essence(after)
