"""The JSON payloads between the daemon and the generator process.

=========  =================  ================================
question   payload            answer
=========  =================  ================================
LOAD       `Load`             LOADED, a `GeneratorInfo`
GENERATE   `Generate`         PROGRESS, any number of `Progress`, then IMAGE, a `Generated`
=========  =================  ================================

HELLO (``protocol``, ``pid``) and FAILURE (``kind``, ``message``, ``hint``) are facts, as
everywhere on these pipes.
"""

from __future__ import annotations

import msgspec

from fluxdrop.generate.request import GenerationRequest


class Load(msgspec.Struct, frozen=True):
    """Have this pipeline in memory; the one that was there before goes."""

    pipeline: str


class Generate(msgspec.Struct, frozen=True):
    """Make a picture with *pipeline* and write it, as PNG, to the path *target*."""

    pipeline: str
    request: GenerationRequest
    target: str


class Progress(msgspec.Struct, frozen=True):
    """*step* of *steps* is done."""

    step: int
    steps: int
