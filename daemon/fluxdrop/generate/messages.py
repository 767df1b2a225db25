"""The JSON payloads between the daemon and the generator process.

=========  =================  ================================
question   payload            answer
=========  =================  ================================
LOAD       `Load`             LOADED, a `GeneratorInfo`
GENERATE   `Generate`         PROGRESS, any number of `Progress`, then IMAGE, a list of `Generated`
=========  =================  ================================

HELLO (``protocol``, ``pid``) and FAILURE (``kind``, ``message``, ``hint``, ``errno``) are facts, as
everywhere on these pipes.
"""

from __future__ import annotations

import msgspec

from fluxdrop.config import PipelineTable
from fluxdrop.generate.request import GenerationRequest


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Have this pipeline in memory, called *name* here; the one that was there before goes."""

    name: str
    table: PipelineTable


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """One picture to be made and written, as PNG, to the path *target*; it is not wanted any more
    when the path *cancelled* is there. *prompt* is the request's without the tags of its LoRAs."""

    request: GenerationRequest
    prompt: str
    target: str
    cancelled: str | None


class Generate(msgspec.Struct, frozen=True, kw_only=True):
    """Make pictures with the pipeline that was loaded last, in one run: all but prompt and seed is
    the same for all. *loras* are files with their weights."""

    pictures: list[Picture]
    loras: list[tuple[str, float]]


class Progress(msgspec.Struct, frozen=True):
    """*step* of *steps* is done."""

    step: int
    steps: int
