"""A pipeline that sleeps instead of computing: its prompts are ``KIND SECONDS``, as in ``noise 1``.

KIND ``noise`` makes pictures that do not compress, of 3 bytes a pixel; ``flat`` makes grey ones.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from PIL import Image

from fluxdrop.config import PipelineTable
from fluxdrop.generate.messages import PictureOrder
from fluxdrop.generate.parameters import (
    Generated,
    GenerationParameters,
    GeneratorInfo,
    PromptParameters,
)
from fluxdrop.generate.sources import PipelineSource

_STEPS = 10


class Pipeline:
    """See `fluxdrop.generate.pipeline.Pipeline`, as far as the generator process uses it."""

    def __init__(self, name: str, table: PipelineTable, source: PipelineSource) -> None:
        del table
        self.twins = 0
        self.info = GeneratorInfo(
            name=name,
            pipeline="Sleeping",
            model=source.model,
            revision=None,
            device="cpu",
            dtype="float32",
        )

    def is_small(self, parameters: PromptParameters) -> bool:
        """Whether several may be made at a time: not here, as each host stands for one GPU."""
        del parameters
        return False

    def generate(
        self,
        wanted: Sequence[PictureOrder],
        loras: object,
        on_step: Callable[[int, int], None],
    ) -> list[tuple[Image.Image, Generated]]:
        """Sleep as long as the first prompt says, and make what each one says."""
        del loras
        seconds = float(wanted[0].prompt.split()[1])
        for step in range(1, _STEPS + 1):
            time.sleep(seconds / _STEPS)
            on_step(step, _STEPS)
        return [self._picture(order) for order in wanted]

    def _picture(self, order: PictureOrder) -> tuple[Image.Image, Generated]:
        asked = order.parameters
        seed, width, height = asked.seed or 0, asked.width or 64, asked.height or 64
        if order.prompt.startswith("noise"):
            pixels = random.Random(seed).randbytes(3 * width * height)
            image = Image.frombytes("RGB", (width, height), pixels)
        else:
            image = Image.new("RGB", (width, height), "grey")
        used = GenerationParameters(
            prompt=asked.prompt,
            negative_prompt="",
            steps=_STEPS,
            guidance_scale=None,
            seed=seed,
            width=width,
            height=height,
            sampler="none",
        )
        return image, Generated(
            parameters=used,
            generator=self.info,
            warnings=[],
            width=width,
            height=height,
            nsfw=None,
        )
