"""The broker as the daemon sees it: started when needed, replaced when it ends, with growing pauses."""

from __future__ import annotations

import os
import sys
import time

import msgspec

from fluxdrop.cluster.messages import ClusterState, Join
from fluxdrop.processes.child import Child, ChildDied
from fluxdrop.processes.wire import Frame, FrameKind, WireError, unpack_facts

_START_SECONDS = 60.0
_JOIN_SECONDS = 180.0
_SILENT_SECONDS = 30.0
"""After this without a frame, the broker hangs: it sends one every two seconds."""
_FIRST_PAUSE_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 30.0
_SETTLED_SECONDS = 120.0
"""A broker that lived so long is replaced at once."""


class BrokerProcess:
    """At most one broker at a time. Only one thread may use it, and that thread must outlive it."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._child: Child | None = None
        self._pause = _FIRST_PAUSE_SECONDS
        self._next_start = 0.0
        self._started_at = 0.0
        self._heard_at = 0.0
        self._has_joined = False
        self.trouble: str | None = None
        """Why there is no broker that has joined the cluster, as a sentence; None if there is one, or at first."""

    @property
    def pid(self) -> int | None:
        """The broker's process id; None while there is none."""
        return self._child.pid if self._child and self._child.alive() else None

    @property
    def is_running(self) -> bool:
        """Whether there is a broker, as far as is known."""
        return self._child is not None

    def start(self, join: Join) -> bool:
        """Start a broker if there is none and the pause after the last one is over; return whether it was started."""
        if self._child is not None or time.monotonic() < self._next_start:
            return False
        self._started_at = self._heard_at = time.monotonic()
        self._has_joined = False
        try:
            # -P keeps the working folder, into which anyone may drop a ray.py, off the import path.
            self._child = Child(
                "broker",
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "fluxdrop.cluster.broker",
                    "--parent",
                    str(os.getpid()),
                ],
                env=os.environ,
                start_timeout=_START_SECONDS,
            )
            self.send(FrameKind.JOIN, 0, msgspec.json.encode(join))
        except ChildDied as error:
            self._note_end(error.message)
            return False
        return True

    def send(self, kind: FrameKind, request: int, payload: bytes = b"") -> None:
        """Send a frame.

        Raises:
            ChildDied: There is no broker any more.
        """
        if self._child is None:
            raise ChildDied("the broker is gone")
        try:
            self._child.send(kind, request, payload)
        except ChildDied as error:
            self._note_end(error.message)
            raise

    def receive(self, timeout: float) -> Frame | None:
        """Return the next frame from the broker; None if there is none within *timeout* seconds.

        Raises:
            ChildDied: There is no broker any more.
        """
        if self._child is None:
            raise ChildDied("the broker is gone")
        try:
            frame = self._child.receive(timeout)
            if frame is None:
                self._check_silence(self._child)
                return None
        except ChildDied as error:
            self._note_end(self._why_ended(error))
            raise
        self._heard_at = time.monotonic()
        if frame.kind is FrameKind.FAILURE:
            facts = unpack_facts(frame.payload)
            message = " ".join(filter(None, (facts.get("message"), facts.get("hint"))))
            self.close()
            self._note_end(message)
            raise ChildDied(message)
        if frame.kind is FrameKind.CLUSTER:
            self._note_state(frame)
        return frame

    def reject(self, error: WireError) -> ChildDied:
        """End a broker that sent a frame that is wrong; return the error to raise."""
        assert self._child is not None
        died = self._child.reject_reply(error)
        self._note_end(died.message)
        return died

    def close(self) -> None:
        """End the broker, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def _note_state(self, frame: Frame) -> None:
        state = msgspec.json.decode(frame.payload, type=ClusterState)
        self._has_joined = self._has_joined or bool(state.hosts) or state.outage is None
        if self._has_joined:
            self.trouble = None

    def _check_silence(self, child: Child) -> None:
        limit = _SILENT_SECONDS if self._has_joined else _JOIN_SECONDS
        if time.monotonic() - self._heard_at > limit:
            raise child.reject_reply(WireError(f"nothing was heard from it for {limit:g} s"))

    def _why_ended(self, error: ChildDied) -> str:
        """Return why the broker ended. Once it has joined, its last line is of Ray's stack, and says nothing."""
        if not self._has_joined:
            return error.message
        what = error.message.partition("; its last line was: ")[0]
        return (
            f"{what}, as when the head is lost; the head's log is `journalctl -u fluxdrop-cluster`"
        )

    def _note_end(self, reason: str) -> None:
        moment = time.monotonic()
        if moment - self._started_at > _SETTLED_SECONDS:
            self._pause = _FIRST_PAUSE_SECONDS
        self._next_start = moment + self._pause
        self._pause = min(2 * self._pause, _MAX_PAUSE_SECONDS)
        self._child = None
        self.trouble = f"There is no connection to the cluster: {reason}"
