"""The broker process: ``python -m fluxdrop.cluster.broker --in FD --out FD --parent PID``.

It is the driver of Ray, which would end the daemon with itself when it loses the head. It joins the cluster that
JOIN names, keeps one `fluxdrop.cluster.hand.Hand` for each GPU that it needs, and gives each at most one run at a
time. It ends on STOP, at end of file, when its parent dies, and when the head does not answer any more.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from queue import SimpleQueue

import msgspec

from fluxdrop.cluster import ray_cluster
from fluxdrop.cluster.messages import Join
from fluxdrop.cluster.runs import Runs
from fluxdrop.errors import FluxdropError
from fluxdrop.generate import failures
from fluxdrop.processes import wire
from fluxdrop.processes.parent import open_pipe
from fluxdrop.processes.wire import Frame, FrameKind, Pipe

_LEAVE_SECONDS = 1.5
_MANY_FRAMES = 100


class DaemonLink:
    """The frames to and from the daemon. `send` never waits, however long the daemon does not read."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._outgoing: SimpleQueue[tuple[FrameKind, int, bytes] | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="writer", daemon=True)
        self._writer.start()

    def send(self, kind: FrameKind, request: int, payload: bytes) -> None:
        """Have a frame written after those before."""
        self._outgoing.put((kind, request, payload))

    @property
    def is_behind(self) -> bool:
        """Whether many frames wait to be written."""
        return self._outgoing.qsize() > _MANY_FRAMES

    def receive(self) -> Frame:
        """Wait for the next frame. Ends the process at end of file."""
        try:
            return self._pipe.receive()
        except wire.PipeClosed:
            os._exit(0)

    def flush(self) -> None:
        """Wait until everything is written. Nothing can be sent any more."""
        self._outgoing.put(None)
        self._writer.join()

    def _write(self) -> None:
        while frame := self._outgoing.get():
            try:
                self._pipe.send(frame[0], frame[1], frame[2])
            except wire.PipeClosed:
                os._exit(0)
            except wire.WireError as error:
                # Pictures that are too large for a frame.
                print(error, file=sys.stderr, flush=True)
                os._exit(1)


def main() -> None:
    """Parse the arguments, set up the process, serve, and exit."""
    link = DaemonLink(open_pipe("fluxdrop.cluster.broker"))
    facts = {"protocol": wire.PROTOCOL_VERSION, "pid": os.getpid()}
    link.send(FrameKind.HELLO, 0, wire.pack_facts(facts))
    try:
        _serve(link)
        code = 0
    except Exception as error:
        if not isinstance(error, FluxdropError):
            traceback.print_exc()
        link.send(FrameKind.FAILURE, 0, wire.pack_facts(failures.facts(error)))
        code = 1
    link.flush()
    sys.stderr.flush()
    # What Ray does at an ordinary exit can take long, if it ends at all.
    os._exit(code)


def _serve(link: DaemonLink) -> None:
    """Join the cluster and make pictures there, until STOP.

    Raises:
        FluxdropError: Kind ``cluster``: the cluster cannot be joined, or its head was lost.
    """
    frame = link.receive()
    if frame.kind is FrameKind.STOP:
        return
    join = msgspec.json.decode(frame.payload, type=Join)
    head_port = ray_cluster.join(join.address)
    Runs(join, link, head_port).serve()
    leaving = threading.Thread(target=ray_cluster.leave, daemon=True)
    leaving.start()
    leaving.join(_LEAVE_SECONDS)


if __name__ == "__main__":
    main()
