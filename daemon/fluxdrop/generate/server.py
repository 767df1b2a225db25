"""The generator process: ``python -m fluxdrop.generate.server --in FD --out FD --parent PID``.

It sends HELLO at once, and imports torch with the first pipeline. It keeps the last pipeline in
memory, answers errors with FAILURE, and ends on STOP, at end of file, and when its parent dies.

On a CPU, on Linux, it makes no picture itself: twins do, processes that it forks when the pipeline is
loaded. They share its memory, so that several cost little more than one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from fluxdrop.generate import answering, failures, sources
from fluxdrop.generate.messages import DIED, Generate, Load, Loaded
from fluxdrop.generate.twins import Twin
from fluxdrop.processes import wire
from fluxdrop.processes.parent import open_pipe
from fluxdrop.processes.wire import Frame, FrameKind, Pipe

if TYPE_CHECKING:
    from fluxdrop.generate.pipeline import Pipeline

_NICENESS = 19


class _Waiting(NamedTuple):
    """An order that is not begun."""

    request: int
    order: Generate


class Server:
    """Answers the frames of *pipe*."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._waiting: deque[_Waiting] = deque()
        self._pipeline: Pipeline | None = None
        self._loaded: Load | None = None
        self._twins: dict[Pipe, Twin] = {}
        self._device_lost = False

    def run(self) -> None:
        """Serve until a STOP frame, or until the device is lost.

        Raises:
            PipeClosed: At end of file.
            WireError: When a frame is malformed, or of a kind that the generator cannot answer.
        """
        facts = {"protocol": wire.PROTOCOL_VERSION, "pid": os.getpid()}
        self._pipe.send(FrameKind.HELLO, 0, wire.pack_facts(facts))
        while not self._device_lost:
            for pipe in wire.readable([self._pipe, *self._twins]):
                if pipe is not self._pipe:
                    self._pass_on(self._twins[pipe])
                elif not self._accept(pipe.receive()):
                    return
            while self._waiting and self._begin(*self._waiting[0]):
                self._waiting.popleft()

    def close(self) -> None:
        """End the twins."""
        for twin in self._twins.values():
            twin.close()
        self._twins = {}

    def _accept(self, frame: Frame) -> bool:
        """Answer *frame*, or have its order wait; return False for STOP."""
        match frame.kind:
            case FrameKind.STOP:
                return False
            case FrameKind.PING:
                self._pipe.send(FrameKind.PONG, frame.request, bytes(frame.payload))
            case FrameKind.GENERATE:
                order = msgspec.json.decode(frame.payload, type=Generate)
                self._waiting.append(_Waiting(frame.request, order))
            case _:
                raise wire.WireError(f"the generator cannot answer {frame.kind.name}")
        return True

    def _pass_on(self, twin: Twin) -> None:
        """Pass a frame of *twin* on to the daemon, or the news that it died."""
        try:
            frame = twin.pipe.receive()
        except wire.PipeClosed:
            del self._twins[twin.pipe]
            how = twin.reap()
            if twin.request is not None:
                facts = {"kind": DIED, "message": f"a process of the generator {how}"}
                self._pipe.send(FrameKind.FAILURE, twin.request, wire.pack_facts(facts))
            return
        if frame.kind is not FrameKind.PROGRESS:
            twin.request = None
        self._pipe.send(frame.kind, frame.request, bytes(frame.payload))

    def _begin(self, request: int, order: Generate) -> bool:
        """Begin an order; return False if it has to wait until another one is done."""
        busy = [twin for twin in self._twins.values() if twin.request is not None]
        try:
            if self._loaded != order.load:
                if busy:
                    return False
                self._load(order.load)
            assert self._pipeline is not None
            is_alone = not self._pipeline.is_small(order.pictures[0].parameters)
            twins = self._pipeline.twins
            if busy and (is_alone or len(busy) == twins or busy[0].is_alone):
                return False
            loaded = Loaded(1 if is_alone else max(twins, 1))
            self._pipe.send(FrameKind.LOADED, request, msgspec.json.encode(loaded))
            if twins:
                self._idle_twin(self._pipeline).begin(request, order, is_alone=is_alone)
            else:
                answering.answer(self._pipe, request, self._pipeline, order)
        except wire.WireError:
            raise
        except Exception as error:
            answering.refuse(self._pipe, request, error)
            self._device_lost = failures.device_lost(error)
        return True

    def _idle_twin(self, pipeline: Pipeline) -> Twin:
        """Return a twin that is not busy, a new one if all others are."""
        for twin in self._twins.values():
            if twin.request is None:
                return twin
        twin = Twin(pipeline, [self._pipe, *self._twins])
        self._twins[twin.pipe] = twin
        return twin

    def _load(self, load: Load) -> None:
        """Load the pipeline that *load* describes."""
        if self._pipeline is not None:
            # Free the old pipeline first: two may not fit into the memory.
            self.close()
            self._pipeline = self._loaded = None
            gc.unfreeze()
            gc.collect()
        table = load.table
        source = sources.find(table.source, table.revision, table.config)
        # Collecting garbage while a hundred thousand objects are made to stay takes a fifth of the time.
        gc.disable()
        try:
            from fluxdrop.generate.pipeline import Pipeline

            self._pipeline, self._loaded = Pipeline(load.name, table, source), load
        finally:
            gc.enable()
            gc.collect()
        # A collection writes to the objects that it looks at, and each twin would get its own copy of them.
        gc.freeze()
        _give_back_memory()


def _give_back_memory() -> None:
    """Give back what loading took and freed, where the C library can: twins would write to it, and so copy it."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def main() -> None:
    """Parse the arguments, set up the process, serve, and exit."""
    pipe = open_pipe("fluxdrop.generate.server")
    _lower_priority()
    with (
        contextlib.suppress(wire.PipeClosed),
        contextlib.closing(Server(pipe)) as server,
    ):
        server.run()
    # All files are closed. An ordinary exit would unload torch, and keep the daemon waiting for a second.
    sys.stdout.flush()
    os._exit(0)


def _lower_priority() -> None:
    """Lower this process's priority below all others on the machine.

    Generating takes seconds anyway, while dropped pictures need milliseconds of the same cores.
    """
    os.nice(_NICENESS)
    if sys.platform == "linux":
        # Others then have its core at once (sched(7)). With niceness alone they wait for the end of its time slice, a
        # few milliseconds at each of the dozen times that a picture passes from one thread to another.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


if __name__ == "__main__":
    main()
