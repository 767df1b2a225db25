"""The JSON payloads between the daemon and the generator process.

=========  ===========  ==================================================================================
frame      payload      answer
=========  ===========  ==================================================================================
GENERATE   `Generate`   LOADED, a `Loaded`; PROGRESS, any number of `StepProgress`; IMAGE, of `pack_images`
=========  ===========  ==================================================================================

Several orders may be sent before the first is answered. They are begun in this order.

The payloads of HELLO (``protocol``, ``pid``) and FAILURE (``kind``, ``message``, ``hint``) are facts, as on
all these pipes; see docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from fluxdrop.config import PipelineTable
from fluxdrop.generate.parameters import Generated, PromptParameters
from fluxdrop.processes.headed import pack_head, unpack_head
from fluxdrop.processes.wire import WireError

DIED = "died"
"""The kind of a FAILURE whose order took the life of one of the generator's processes, but not of all."""


class GeneratedImage(NamedTuple):
    """A generated image, of which the daemon writes the PNG to the job's image.png."""

    png: bytes
    """The PNG file, with the infotext in it."""
    generated: Generated
    """How it was generated."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline to be loaded. *name* is its configured name."""

    name: str
    table: PipelineTable


class Loaded(msgspec.Struct, frozen=True):
    """The order's pipeline is loaded, and its pictures are begun."""

    slots: int
    """How many orders like this one are worked on at once."""


class PictureOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One picture to be made."""

    parameters: PromptParameters
    prompt: str
    """The prompt without its LoRA tags."""
    cancelled: str | None = None
    """The path of a file that cancels the picture as soon as it exists."""


class Generate(msgspec.Struct, frozen=True, kw_only=True):
    """Make pictures in one run.

    Their parameters differ in the prompts and seeds only.
    """

    load: Load
    """Their pipeline. If another one is loaded, that is freed."""
    pictures: list[PictureOrder]
    loras: list[tuple[str, float]]
    """Files with their weights."""


class StepProgress(msgspec.Struct, frozen=True):
    """*step* of *steps* steps are finished."""

    step: int
    steps: int


class _ImageHead(msgspec.Struct, frozen=True):
    """The head of an IMAGE frame: how each picture was made, and the length of its PNG in bytes."""

    generated: list[Generated]
    lengths: list[int]


def pack_images(images: Sequence[GeneratedImage]) -> bytes:
    """Return *images* as the payload of an IMAGE frame: the head's length, the head, and the PNGs one after another."""
    head = _ImageHead([image.generated for image in images], [len(image.png) for image in images])
    return b"".join([pack_head(head), *(image.png for image in images)])


def unpack_images(payload: bytes | bytearray) -> list[GeneratedImage]:
    """Return the pictures in *payload*, which `pack_images` made.

    Raises:
        WireError: When the payload is malformed.
    """
    head, start = unpack_head(payload, _ImageHead, "an IMAGE frame")
    if len(head.lengths) != len(head.generated) or start + sum(head.lengths) != len(payload):
        raise WireError("an IMAGE frame whose pictures are not as long as it says")
    images = []
    for generated, size in zip(head.generated, head.lengths, strict=True):
        images.append(GeneratedImage(bytes(payload[start : start + size]), generated))
        start += size
    return images
