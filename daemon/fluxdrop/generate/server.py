"""The generator process: ``python -m fluxdrop.generate.server --in FD --out FD --parent PID``.

It sends HELLO at once, and imports torch with the first pipeline. It keeps the last pipeline in
memory, answers errors with FAILURE, and ends on STOP, at end of file, and when its parent dies.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import traceback
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.generate import failures, sources
from fluxdrop.generate.failures import cancelled
from fluxdrop.generate.infotext import format_infotext
from fluxdrop.generate.messages import Generate, GeneratedImage, Load, StepProgress, pack_images
from fluxdrop.processes import wire
from fluxdrop.processes.parent import die_with_parent
from fluxdrop.processes.wire import Frame, FrameKind, Pipe

if TYPE_CHECKING:
    from PIL.Image import Image

    from fluxdrop.generate.pipeline import Pipeline

_NICENESS = 19


class Server:
    """Answers the frames of *pipe*, one at a time."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._pipeline: Pipeline | None = None
        self._loaded: Load | None = None

    def run(self) -> None:
        """Serve until a STOP frame, or until the device is lost.

        Raises:
            PipeClosed: At end of file.
            WireError: When a frame is malformed, or of a kind that the generator cannot answer.
        """
        facts = {"protocol": wire.PROTOCOL_VERSION, "pid": os.getpid()}
        self._pipe.send(FrameKind.HELLO, 0, wire.pack_facts(facts))
        usable = True
        while usable and (frame := self._pipe.receive()).kind is not FrameKind.STOP:
            try:
                kind, payload = self._answer(frame)
            except wire.WireError:
                raise
            except Exception as error:
                if not isinstance(error, FluxdropError) or error.__cause__:
                    traceback.print_exc()
                kind, payload = FrameKind.FAILURE, wire.pack_facts(failures.facts(error))
                usable = not failures.device_lost(error)
            self._pipe.send(kind, frame.request, payload)

    def _answer(self, frame: Frame) -> tuple[FrameKind, bytes]:
        """Return the kind and payload of the answer to *frame*."""
        match frame.kind:
            case FrameKind.PING:
                return FrameKind.PONG, bytes(frame.payload)
            case FrameKind.LOAD:
                load = msgspec.json.decode(frame.payload, type=Load)
                return FrameKind.LOADED, msgspec.json.encode(self._load(load).info)
            case FrameKind.GENERATE:
                order = msgspec.json.decode(frame.payload, type=Generate)
                return FrameKind.IMAGE, self._generate(order, frame.request)
            case _:
                raise wire.WireError(f"the generator cannot answer {frame.kind.name}")

    def _load(self, load: Load) -> Pipeline:
        """Return the pipeline that *load* describes, and load it unless it is in memory."""
        if self._pipeline is None or self._loaded != load:
            # Free the old pipeline first: two may not fit into the memory.
            self._pipeline = self._loaded = None
            table = load.table
            source = sources.find(table.source, table.revision, table.config)
            from fluxdrop.generate.pipeline import Pipeline

            self._pipeline, self._loaded = Pipeline(load.name, table, source), load
        return self._pipeline

    def _generate(self, order: Generate, request_id: int) -> bytes:
        """Make the pictures of *order*, sending PROGRESS after each step; return the payload of IMAGE."""
        if self._pipeline is None:
            raise FluxdropError("No pipeline is loaded.", kind="generator")

        def on_step(step: int, steps: int) -> None:
            """Report the step; raise when all pictures of the order are cancelled."""
            progress = msgspec.json.encode(StepProgress(step, steps))
            self._pipe.send(FrameKind.PROGRESS, request_id, progress)
            marks = [picture.cancelled for picture in order.pictures]
            if all(mark is not None and Path(mark).exists() for mark in marks):
                raise cancelled()

        made = self._pipeline.generate(order.pictures, order.loras, on_step)
        return pack_images(
            [
                GeneratedImage(
                    png(image, format_infotext(one.parameters, model=one.generator.name)), one
                )
                for image, one in made
            ]
        )


def png(image: Image, infotext: str) -> bytes:
    """Return *image* as a PNG file with *infotext* in its ``parameters`` chunk."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("parameters", infotext)
    written = BytesIO()
    image.save(written, format="PNG", pnginfo=info)
    return written.getvalue()


def main() -> None:
    """Parse the arguments, set up the process, serve, and exit."""
    parser = argparse.ArgumentParser(prog="fluxdrop.generate.server")
    parser.add_argument("--in", dest="read_fd", type=int, required=True)
    parser.add_argument("--out", dest="write_fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    # Ctrl-C in a terminal reaches the whole process group, but the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(arguments.parent)
    _lower_priority()
    for fd in (arguments.read_fd, arguments.write_fd):
        os.set_inheritable(fd, False)
    with contextlib.suppress(wire.PipeClosed):
        Server(Pipe(arguments.read_fd, arguments.write_fd)).run()
    # All files are closed. An ordinary exit would unload torch, and keep the daemon waiting for a second.
    sys.stdout.flush()
    os._exit(0)


def _lower_priority() -> None:
    """Lower this process's priority below all others on the machine.

    Generating takes seconds anyway, while dropped pictures need milliseconds of the same cores.
    """
    os.nice(_NICENESS)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


if __name__ == "__main__":
    main()
