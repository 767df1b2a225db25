"""The hands of a cluster, as the daemon uses them. Nothing here imports Ray."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import msgspec

from fluxdrop.cluster.broker_process import BrokerProcess
from fluxdrop.cluster.messages import (
    ClusterState,
    DiedOutcome,
    Join,
    LostOutcome,
    MadeOutcome,
    RefusedOutcome,
    RunOrder,
    Sent,
    shown,
    unpack_outcome,
)
from fluxdrop.cluster.received import checked_images
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate import orders
from fluxdrop.generate.choose_pipeline import configured
from fluxdrop.generate.hands import (
    Died,
    HostLost,
    HostStatus,
    Made,
    OnStep,
    Outcome,
    Refused,
    Run,
    dispatch_seconds,
)
from fluxdrop.generate.messages import StepProgress
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.generate.pipeline_process import limits_of
from fluxdrop.processes.child import ChildDied
from fluxdrop.processes.wire import Frame, FrameKind, WireError

_WAIT_SECONDS = 0.25
"""How often the hook is called."""
_POLL_SECONDS = 0.001


@dataclass(slots=True)
class _InHand:
    """A run that the broker has."""

    run: Run
    prepared: orders.PreparedRun
    begun_at: float
    host: str = ""
    """The host that makes it; empty while it waits for one."""
    host_class: str = ""
    is_cancelled: bool = False


class ClusterHands:
    """See `fluxdrop.generate.hands.Hands`. The pictures are made on the hosts of a Ray cluster.

    The broker is started by the first call of `finished` or `tend`.
    """

    def __init__(self, settings: Settings, wait_hook: Callable[[], None] | None = None) -> None:
        """Set up the hands for a root.

        Args:
            settings: The cluster, the pipelines, and the limits of the processes that run them.
            wait_hook: Called several times a second while `finished` waits; what it raises leaves the call.
        """
        self._settings = settings
        self._wait_hook = wait_hook
        self._broker = BrokerProcess()
        self._numbers = itertools.count(1)
        self._in_hand: dict[int, _InHand] = {}
        self._ended: list[Outcome] = []
        self._state = _no_state()
        self._hosts: list[HostStatus] = []

    @property
    def pid(self) -> int | None:
        """See `Hands.pid`: the broker's."""
        return self._broker.pid

    @property
    def slots(self) -> int:
        """See `Hands.slots`."""
        return max(1, self._state.slots)

    @property
    def room(self) -> int:
        """See `Hands.room`."""
        if self.outage or any(one.run.alone and not one.host for one in self._in_hand.values()):
            return 0
        return max(0, self._state.slots - len(self._in_hand))

    @property
    def outage(self) -> str | None:
        """See `Hands.outage`."""
        return self._broker.trouble or self._state.outage

    def batch_key(self, parameters: PromptParameters) -> Hashable:
        """See `Hands.batch_key`."""
        return orders.batch_key(self._settings, parameters)

    def begin(self, run: Run) -> None:
        """See `Hands.begin`."""
        try:
            prepared = orders.prepare(self._settings, run.orders)
        except FluxdropError as error:
            self._ended.append(Refused(run.id, error))
            return
        order = RunOrder(
            id=run.id,
            load=prepared.load,
            pictures=prepared.pictures,
            loras=[(str(lora.file), lora.weight) for lora in prepared.loras],
            limits=limits_of(self._settings),
            alone=run.alone,
            host_class=run.host_class,
        )
        number = next(self._numbers)
        self._in_hand[number] = _InHand(run, prepared, time.monotonic())
        self._send(FrameKind.RUN, number, msgspec.json.encode(order))

    def finished(self, timeout: float, on_step: OnStep) -> Sequence[Outcome]:
        """See `Hands.finished`."""
        deadline = time.monotonic() + timeout
        while not self._ended:
            left = deadline - time.monotonic()
            self._read(min(max(left, _POLL_SECONDS), _WAIT_SECONDS), on_step)
            if self._wait_hook:
                self._wait_hook()
            if left <= 0:
                break
        ended, self._ended = self._ended, []
        return ended

    def cancel(self, run: str) -> None:
        """See `Hands.cancel`."""
        for number, one in list(self._in_hand.items()):
            if one.run.id == run and not one.is_cancelled:
                one.is_cancelled = True
                self._send(FrameKind.CANCEL, number)

    def hosts(self) -> list[HostStatus]:
        """See `Hands.hosts`."""
        return self._hosts

    def tend(self) -> None:
        """See `Hands.tend`: read what the broker says, and replace it if it ended or hangs."""
        self._read(_POLL_SECONDS, _ignore_step)

    def close(self) -> None:
        """See `Hands.close`."""
        self._broker.close()
        self._in_hand.clear()
        self._ended.clear()
        self._state = _no_state(self._state.host_class)
        self._hosts = []

    def _read(self, timeout: float, on_step: OnStep) -> None:
        """Act on what the broker says, waiting *timeout* seconds for the first frame. Start one if there is none."""
        if not self._broker.is_running and not self._broker.start(self._join()):
            time.sleep(timeout)
            return
        try:
            frame = self._broker.receive(timeout)
            while frame is not None:
                self._take(frame, on_step)
                frame = self._broker.receive(_POLL_SECONDS)
        except ChildDied as error:
            self._lose_all(error.message)

    def _join(self) -> Join:
        names, default = configured(self._settings)
        return Join(
            address=self._settings.cluster,
            most=self._settings.cluster_most,
            hosts=self._settings.hosts,
            host_class=self._state.host_class,
            idle_seconds=self._settings.generator_idle_seconds,
            pipelines=names,
            default_pipeline=default,
        )

    def _take(self, frame: Frame, on_step: OnStep) -> None:
        """Act on one frame.

        Raises:
            ChildDied: The frame was malformed, and the broker is ended.
        """
        try:
            one = self._in_hand.get(frame.request)
            match frame.kind:
                case FrameKind.CLUSTER:
                    self._state = msgspec.json.decode(frame.payload, type=ClusterState)
                case FrameKind.SENT if one:
                    sent = msgspec.json.decode(frame.payload, type=Sent)
                    one.host, one.host_class = sent.host, sent.host_class
                    dispatch_seconds.append(time.monotonic() - one.begun_at)
                case FrameKind.PROGRESS if one:
                    step = msgspec.json.decode(frame.payload, type=StepProgress)
                    on_step(one.run.id, step.step, step.steps)
                case FrameKind.OUTCOME if one:
                    self._ended.append(self._outcome(one, frame.payload))
                    del self._in_hand[frame.request]
                case _:
                    raise WireError(f"a frame {frame.kind.name} for request {frame.request}")
        except (WireError, msgspec.DecodeError) as error:
            raise self._broker.reject(WireError(str(error))) from error
        self._show_hosts()

    def _outcome(self, one: _InHand, payload: bytes | bytearray) -> Outcome:
        outcome, images = unpack_outcome(payload)
        if outcome.run != one.run.id:
            raise WireError(f"the outcome of the run {outcome.run} for {one.run.id}")
        match outcome:
            case MadeOutcome(sha256=digests):
                try:
                    made = checked_images(
                        images, digests, len(one.run.orders), self._settings.max_pixels
                    )
                except WireError as error:
                    # What a host sends is not the broker's fault.
                    return HostLost(one.run.id, one.host, str(error))
                return Made(one.run.id, one.prepared.with_warnings(made), one.host, one.host_class)
            case RefusedOutcome(message=message, hint=hint, kind=kind):
                refusal = FluxdropError(shown(message), hint=shown(hint), kind=shown(kind))
                return Refused(one.run.id, refusal)
            case DiedOutcome(message=message, tail=tail):
                return Died(one.run.id, ChildDied(f"On {one.host}, {message}", tail=tail))
            case LostOutcome(host=host, reason=reason):
                return HostLost(one.run.id, shown(host), shown(reason))

    def _send(self, kind: FrameKind, number: int, payload: bytes = b"") -> None:
        try:
            self._broker.send(kind, number, payload)
        except ChildDied as error:
            self._lose_all(error.message)

    def _lose_all(self, reason: str) -> None:
        """Give up all that is in hand, as the broker is gone."""
        for one in self._in_hand.values():
            self._ended.append(HostLost(one.run.id, "", reason))
        self._in_hand.clear()
        self._state = _no_state(self._state.host_class)
        self._show_hosts()

    def _show_hosts(self) -> None:
        jobs: dict[str, list[str]] = {}
        for one in self._in_hand.values():
            jobs.setdefault(one.host, []).extend(one.run.jobs)
        self._hosts = [
            msgspec.structs.replace(host, jobs=jobs.get(host.name, []))
            for host in self._state.hosts
        ]


def _no_state(host_class: str = "") -> ClusterState:
    return ClusterState(outage=None, slots=0, host_class=host_class, hosts=[])


def _ignore_step(run: str, step: int, steps: int) -> None:
    del run, step, steps
