"""What a root wants of a generator: the pictures of one run, with the pipeline and the LoRAs that its settings mean."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from fluxdrop.config import Settings
from fluxdrop.generate.choose_pipeline import choose
from fluxdrop.generate.lora import Lora, split_tags
from fluxdrop.generate.messages import GeneratedImage, Load, PictureOrder
from fluxdrop.generate.parameters import PromptParameters, check


class GenerationOrder(NamedTuple):
    """A picture to be made."""

    parameters: PromptParameters
    cancelled: Path | None = None
    """A file that cancels the picture as soon as it exists."""


class PreparedRun(NamedTuple):
    """A run of a pipeline, with all that the settings say of it."""

    load: Load
    pictures: list[PictureOrder]
    loras: list[Lora]
    warnings: list[list[str]]
    """What is not done as each picture's prompt asks."""

    def with_warnings(self, images: Sequence[GeneratedImage]) -> list[GeneratedImage]:
        """Return the run's *images* with its warnings before their own."""
        return [
            GeneratedImage(png, msgspec.structs.replace(one, warnings=more + one.warnings))
            for (png, one), more in zip(images, self.warnings, strict=True)
        ]


def prepare(settings: Settings, orders: Sequence[GenerationOrder]) -> PreparedRun:
    """Prepare one run for *orders*, which have the same `batch_key`; at least one.

    Raises:
        FluxdropError: Kind ``prompt`` or ``pipeline``, when a picture cannot be made.
    """
    for order in orders:
        check(order.parameters)
    name, table, warnings = choose(settings, orders[0].parameters.pipeline)
    parsed = [split_tags(order.parameters.prompt, settings.loras) for order in orders]
    return PreparedRun(
        load=Load(name=name, table=table),
        pictures=[
            PictureOrder(
                parameters=order.parameters,
                prompt=prompt,
                cancelled=str(order.cancelled.absolute()) if order.cancelled else None,
            )
            for order, (prompt, _loras, _warnings) in zip(orders, parsed, strict=True)
        ],
        loras=parsed[0][1],
        warnings=[warnings + more for _prompt, _loras, more in parsed],
    )


def batch_key(settings: Settings, parameters: PromptParameters) -> Hashable:
    """Return a key that is equal for pictures that one run of a pipeline can make.

    Raises:
        FluxdropError: Kind ``prompt`` or ``pipeline``, when the picture cannot be made.
    """
    check(parameters)
    name, _table, _warnings = choose(settings, parameters.pipeline)
    _prompt, loras, _warnings = split_tags(parameters.prompt, settings.loras)
    rest = msgspec.structs.replace(
        parameters,
        prompt="",
        negative_prompt="",
        no_negative_prompt=False,
        seed=None,
        random_seed=False,
        pipeline=None,
    )
    return name, tuple(loras), msgspec.structs.astuple(rest)
