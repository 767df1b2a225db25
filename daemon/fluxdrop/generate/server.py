"""The generator process: ``python -m fluxdrop.generate.server --in FD --out FD --parent PID``.

It says HELLO at once and imports torch with the first pipeline. It keeps the pipeline that was used
last, answers whatever goes wrong with FAILURE, and ends on STOP, at end of file and with its
parent.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fluxdrop import wire
from fluxdrop.errors import FluxdropError
from fluxdrop.generate import failures, sources
from fluxdrop.generate.infotext import format_infotext
from fluxdrop.generate.messages import Generate, Load, Progress
from fluxdrop.wire import Frame, Kind, Pipe

if TYPE_CHECKING:
    from PIL.Image import Image

    from fluxdrop.generate.pipeline import Pipeline

_PR_SET_PDEATHSIG = 1


class Server:
    """Answers the frames of one *pipe*, one at a time."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._pipeline: Pipeline | None = None

    def run(self) -> None:
        """Serve until STOP or the loss of the device; raises PipeClosed at end of file."""
        facts = {"protocol": wire.VERSION, "pid": os.getpid()}
        self._pipe.send(Kind.HELLO, 0, wire.pack_facts(facts))
        usable = True
        while usable and (frame := self._pipe.receive()).kind is not Kind.STOP:
            try:
                kind, payload = self._answer(frame)
            except wire.WireError:
                raise
            except Exception as error:
                if not isinstance(error, FluxdropError) or error.__cause__:
                    traceback.print_exc()
                kind, payload = Kind.FAILURE, wire.pack_facts(failures.facts(error))
                usable = not failures.device_lost(error)
            self._pipe.send(kind, frame.request, payload)

    def _answer(self, frame: Frame) -> tuple[Kind, bytes]:
        match frame.kind:
            case Kind.PING:
                return Kind.PONG, bytes(frame.payload)
            case Kind.LOAD:
                load = msgspec.json.decode(frame.payload, type=Load)
                return Kind.LOADED, msgspec.json.encode(self._load(load.pipeline).info)
            case Kind.GENERATE:
                order = msgspec.json.decode(frame.payload, type=Generate)
                return Kind.IMAGE, self._generate(order, frame.request)
            case _:
                raise wire.WireError(f"the generator cannot answer {frame.kind.name}")

    def _load(self, name: str) -> Pipeline:
        if self._pipeline is None or self._pipeline.name != name:
            # The old one goes first: two may not fit into the memory.
            self._pipeline = None
            source = sources.find(name)
            from fluxdrop.generate.pipeline import Pipeline

            self._pipeline = Pipeline(name, source)
        return self._pipeline

    def _generate(self, order: Generate, request_id: int) -> bytes:
        def on_step(step: int, steps: int) -> None:
            progress = msgspec.json.encode(Progress(step, steps))
            self._pipe.send(Kind.PROGRESS, request_id, progress)

        image, generated = self._load(order.pipeline).generate(order.request, on_step)
        infotext = format_infotext(generated.parameters, model=generated.generator.model)
        write_png(image, infotext, Path(order.target))
        return msgspec.json.encode(generated)


def write_png(image: Image, infotext: str, target: Path) -> None:
    """Write *image* with *infotext* in its ``parameters`` chunk.

    At no instant is *target* there and not whole.
    """
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("parameters", infotext)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            image.save(file, format="PNG", pnginfo=info)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def main() -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(prog="fluxdrop.generate.server")
    parser.add_argument("--in", dest="read_fd", type=int, required=True)
    parser.add_argument("--out", dest="write_fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    # Ctrl-C in a terminal reaches the whole process group; the parent decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(arguments.parent)
    for fd in (arguments.read_fd, arguments.write_fd):
        os.set_inheritable(fd, False)
    with contextlib.suppress(wire.PipeClosed):
        Server(Pipe(arguments.read_fd, arguments.write_fd)).run()
    # Every file is closed; taking torch apart would only keep the daemon waiting for a second.
    sys.stdout.flush()
    os._exit(0)


def _end_with(parent: int) -> None:
    """Have Linux kill this process when its parent dies, also in the middle of a step; prctl(2)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent process is gone")


if __name__ == "__main__":
    main()
