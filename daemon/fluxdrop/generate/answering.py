"""Answer an order on the pipe that it came on: say that it failed, or tell its progress and give its pictures."""

from __future__ import annotations

import traceback
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.generate import failures
from fluxdrop.generate.failures import cancelled
from fluxdrop.generate.infotext import format_infotext
from fluxdrop.generate.messages import Generate, GeneratedImage, StepProgress, pack_images
from fluxdrop.processes import wire
from fluxdrop.processes.wire import FrameKind, Pipe

if TYPE_CHECKING:
    from PIL.Image import Image

    from fluxdrop.generate.pipeline import Pipeline


def answer(pipe: Pipe, request: int, pipeline: Pipeline, order: Generate) -> None:
    """Make the pictures of *order*; send PROGRESS after each step, then IMAGE.

    Raises:
        Exception: What `Pipeline.generate` raises; kind ``cancelled`` if all pictures are cancelled.
    """

    def on_step(step: int, steps: int) -> None:
        """Report the step; raise when all pictures of the order are cancelled."""
        progress = msgspec.json.encode(StepProgress(step, steps))
        pipe.send(FrameKind.PROGRESS, request, progress)
        marks = [picture.cancelled for picture in order.pictures]
        if all(mark is not None and Path(mark).exists() for mark in marks):
            raise cancelled()

    made = pipeline.generate(order.pictures, order.loras, on_step)
    images = [
        GeneratedImage(png(image, format_infotext(one.parameters, model=one.generator.name)), one)
        for image, one in made
    ]
    pipe.send(FrameKind.IMAGE, request, pack_images(images))


def refuse(pipe: Pipe, request: int, error: Exception) -> None:
    """Send FAILURE because of *error*, and print its traceback unless it is expected."""
    if not isinstance(error, FluxdropError) or error.__cause__:
        traceback.print_exception(error)
    pipe.send(FrameKind.FAILURE, request, wire.pack_facts(failures.facts(error)))


def png(image: Image, infotext: str) -> bytes:
    """Return *image* as a PNG file with *infotext* in its ``parameters`` chunk."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("parameters", infotext)
    written = BytesIO()
    image.save(written, format="PNG", pnginfo=info)
    return written.getvalue()
