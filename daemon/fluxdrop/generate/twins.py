"""Twins: processes forked from the generator, each of which makes the pictures of one order at a time.

They share the memory of the loaded pipeline. A small picture keeps one processor busy, so several are made at once;
threads would have to wait for each other after each of the thousands of small operations. This module is
for Linux, where a process ends with its parent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

import msgspec

from fluxdrop.generate import answering
from fluxdrop.generate.messages import Generate
from fluxdrop.processes.exit_status import exit_status
from fluxdrop.processes.parent import die_with_parent
from fluxdrop.processes.wire import FrameKind, Pipe, PipeClosed

if TYPE_CHECKING:
    from fluxdrop.generate.pipeline import Pipeline


class Twin:
    """A process forked from this one, idle at first.

    Args:
        pipeline: The pipeline that makes its pictures.
        others: Pipes of this process, for the twin to close.
    """

    def __init__(self, pipeline: Pipeline, others: Iterable[Pipe]) -> None:
        self.request: int | None = None
        """The order at work; None while the twin is idle."""
        self.is_alone = False
        """Whether the order at work is one that takes all processors."""
        their_in, our_out = os.pipe()
        our_in, their_out = os.pipe()
        self.pipe = Pipe(our_in, our_out)
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _run(parent, [*others, self.pipe], Pipe(their_in, their_out), pipeline)
        os.close(their_in)
        os.close(their_out)

    def begin(self, request: int, order: Generate, *, is_alone: bool) -> None:
        """Have the twin answer *order* on `pipe`, which is at its end if the twin has died."""
        self.request, self.is_alone = request, is_alone
        with contextlib.suppress(PipeClosed):
            self.pipe.send(FrameKind.GENERATE, request, msgspec.json.encode(order))

    def close(self) -> None:
        """Kill and reap the twin."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self.reap()

    def reap(self) -> str:
        """Wait for the twin's end; return how it ended."""
        self.pipe.close()
        _pid, status = os.waitpid(self._pid, 0)
        return exit_status(os.waitstatus_to_exitcode(status))


def _run(parent: int, others: Iterable[Pipe], pipe: Pipe, pipeline: Pipeline) -> NoReturn:
    """Be a twin until *pipe* is closed; then end the process."""
    try:
        die_with_parent(parent)
        for other in others:
            other.close()
        with contextlib.suppress(PipeClosed):
            while True:
                frame = pipe.receive()
                order = msgspec.json.decode(frame.payload, type=Generate)
                try:
                    answering.answer(pipe, frame.request, pipeline, order)
                except PipeClosed:
                    raise
                except Exception as error:
                    answering.refuse(pipe, frame.request, error)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    # Nothing of the process that this one was forked from may run here.
    os._exit(code)
