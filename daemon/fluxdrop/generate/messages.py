"""The JSON payloads between the daemon and the generator process.

=========  =================  ================================
question   payload            answer
=========  =================  ================================
LOAD       `Load`             LOADED, a `GeneratorInfo`
GENERATE   `Generate`         PROGRESS, any number of `StepProgress`, then IMAGE, of `pack_images`
=========  =================  ================================

HELLO (``protocol``, ``pid``) and FAILURE (``kind``, ``message``, ``hint``) are facts, as everywhere on
these pipes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from fluxdrop.config import PipelineTable
from fluxdrop.generate.request import Generated, GenerationRequest
from fluxdrop.processes.wire import WireError

_LENGTH = struct.Struct("<I")


class GeneratedImage(NamedTuple):
    """An image that was generated; the daemon writes its PNG to the job's image.png."""

    png: bytes
    """The whole PNG, with its infotext."""
    generated: Generated
    """How it was generated."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Have this pipeline in memory, called *name* here; the one that was there before goes."""

    name: str
    table: PipelineTable


class PictureOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One picture to be made; it is not wanted any more when the path *cancelled* is there. *prompt* is
    the request's without the tags of its LoRAs."""

    request: GenerationRequest
    prompt: str
    cancelled: str | None


class Generate(msgspec.Struct, frozen=True, kw_only=True):
    """Make pictures with the pipeline that was loaded last, in one run: all but prompt and seed is
    the same for all. *loras* are files with their weights."""

    pictures: list[PictureOrder]
    loras: list[tuple[str, float]]


class StepProgress(msgspec.Struct, frozen=True):
    """*step* of *steps* is done."""

    step: int
    steps: int


class _Images(msgspec.Struct, frozen=True):
    """The head of an IMAGE frame: how each picture was made, and how many bytes its PNG has."""

    generated: list[Generated]
    lengths: list[int]


def pack_images(images: Sequence[GeneratedImage]) -> bytes:
    """*images* as the payload of an IMAGE frame: the length of the head, the head, the PNGs in a row."""
    head = msgspec.json.encode(
        _Images([image.generated for image in images], [len(image.png) for image in images])
    )
    return b"".join([_LENGTH.pack(len(head)), head, *(image.png for image in images)])


def unpack_images(payload: bytes | bytearray) -> list[GeneratedImage]:
    """What `pack_images` packed. Raises WireError for anything else."""
    try:
        (length,) = _LENGTH.unpack_from(payload)
        start = _LENGTH.size + length
        head = msgspec.json.decode(payload[_LENGTH.size : start], type=_Images)
    except (struct.error, msgspec.DecodeError) as error:
        raise WireError(f"an IMAGE frame without a head: {error}") from error
    if len(head.lengths) != len(head.generated) or start + sum(head.lengths) != len(payload):
        raise WireError("an IMAGE frame whose pictures are not as long as it says")
    images = []
    for generated, size in zip(head.generated, head.lengths, strict=True):
        images.append(GeneratedImage(bytes(payload[start : start + size]), generated))
        start += size
    return images
