"""A pipeline that takes as long as it is told, and makes noise of the seed.

A prompt's words: ``1.5s`` is how long the picture takes, ``flat`` makes a grey one, ``crash`` ends the process,
``fail`` is an error.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fluxdrop.config import PipelineTable
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.messages import PictureOrder
from fluxdrop.generate.parameters import (
    Generated,
    GenerationParameters,
    GeneratorInfo,
    PromptParameters,
)
from fluxdrop.generate.sources import PipelineSource

_STEPS = 10
_SIDE = 64


class Pipeline:
    """See `fluxdrop.generate.pipeline.Pipeline`."""

    twins = 0

    def __init__(self, name: str, table: PipelineTable, source: PipelineSource) -> None:
        self.info = GeneratorInfo(
            name=name,
            pipeline="Timed",
            model=source.model,
            revision=source.revision,
            device=table.device,
            dtype=table.dtype,
        )

    def is_small(self, parameters: PromptParameters) -> bool:
        """See `fluxdrop.generate.pipeline.Pipeline.is_small`."""
        del parameters
        return False

    def generate(
        self,
        pictures: Sequence[PictureOrder],
        loras: Sequence[tuple[str, float]],
        on_step: Callable[[int, int], None],
    ) -> list[tuple[Image.Image, Generated]]:
        """See `fluxdrop.generate.pipeline.Pipeline.generate`."""
        del loras
        words = pictures[0].prompt.split()
        seconds = next(
            (float(word[:-1]) for word in words if word[:-1].replace(".", "").isdigit()), 0
        )
        mark = _mark()
        steps = pictures[0].parameters.steps or _STEPS
        for step in range(1, steps + 1):
            time.sleep(seconds / steps)
            if "crash" in words:
                os.abort()
            if "fail" in words:
                raise FluxdropError("It was to fail", hint="Ask for another.", kind="compute")
            on_step(step, steps)
        return [self._made(picture, mark) for picture in pictures]

    def _made(self, picture: PictureOrder, mark: bytes) -> tuple[Image.Image, Generated]:
        wanted = picture.parameters
        width, height, seed = wanted.width or _SIDE, wanted.height or _SIDE, wanted.seed or 0
        if "flat" in wanted.prompt.split():
            pixels = np.full((height, width, 3), 128, np.uint8)
        else:
            pixels = np.random.default_rng(seed).integers(
                0, 256, (height, width, 3), dtype=np.uint8
            )
        pixels.reshape(-1)[: len(mark)] = np.frombuffer(mark, np.uint8)
        parameters = GenerationParameters(
            prompt=wanted.prompt,
            negative_prompt=wanted.negative_prompt,
            steps=wanted.steps or _STEPS,
            guidance_scale=None,
            seed=seed,
            width=width,
            height=height,
            sampler="none",
        )
        made = Generated(
            parameters=parameters,
            generator=self.info,
            warnings=[],
            width=width,
            height=height,
            nsfw=None,
        )
        return Image.fromarray(pixels), made


def _mark() -> bytes:
    """Note in the ledger, if the environment names one, that a generation begins; return what tells its pictures."""
    ledger = os.environ.get("TIMED_PIPELINE_LEDGER")
    if ledger is None:
        return b""
    mark = secrets.token_bytes(24)
    line = json.dumps({"mark": mark.hex(), "at": time.time()})
    with Path(ledger).open("a") as file:
        file.write(f"{line}\n")
    return mark
