"""What a picture is asked with, what it was made with, and which values are possible."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from fluxdrop.errors import FluxdropError


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One picture to be made; None is the pipeline's own value, or a seed to be drawn."""

    prompt: str
    negative_prompt: str = ""
    steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    sampler: str | None = None
    pipeline: str | None = None


class GenerationParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a picture was made with, all resolved: the same parameters make the same picture.

    ``guidance_scale`` is None where the pipeline has none.
    """

    prompt: str
    negative_prompt: str
    steps: int
    guidance_scale: float | None
    seed: int
    width: int
    height: int
    sampler: str


class GeneratorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What made a picture.

    ``name`` is what a prompt file's ``Model`` calls it here; ``pipeline`` is the diffusers class;
    ``model`` is the embedded name, the folder's or file's name or the hub id; ``revision`` is the
    commit on the hub, and None for what is local; ``batch`` is how many pictures were made in one
    run.
    """

    name: str
    pipeline: str
    model: str
    revision: str | None
    device: str
    dtype: str
    batch: int = 1


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """A finished picture's facts.

    ``nsfw`` is the word of the pipeline's own safety checker, None where it has none.
    """

    parameters: GenerationParameters
    generator: GeneratorInfo
    warnings: list[str]
    width: int
    height: int
    nsfw: bool | None


class Range(NamedTuple):
    """The values that a parameter may have, under the key that infotext has for it."""

    key: str
    low: float
    high: float
    multiple: int = 1

    def __str__(self) -> str:
        steps = f" in steps of {self.multiple}" if self.multiple > 1 else ""
        return f"{self.low} to {self.high}{steps}"


RANGES = {
    "steps": Range("Steps", 1, 1000),
    "guidance_scale": Range("CFG scale", 0, 100),
    "seed": Range("Seed", 0, 2**64 - 1),
    "width": Range("Size (width)", 8, 8192, multiple=8),
    "height": Range("Size (height)", 8, 8192, multiple=8),
}
BATCH_SIZES = Range("Batch size", 1, 100)


def check(request: GenerationRequest | GenerationParameters) -> None:
    """Refuse an impossible request with FluxdropError of kind ``prompt``.

    It names the key, the value and what is possible.
    """
    if not request.prompt.strip():
        raise FluxdropError(
            "The prompt is empty.",
            hint="Write what the picture should show before the line of parameters.",
            kind="prompt",
        )
    for field in ("prompt", "negative_prompt"):
        if "\0" in getattr(request, field):
            raise FluxdropError(
                f"The {field.replace('_', ' ')} has a NUL character.", kind="prompt"
            )
    for field, allowed in RANGES.items():
        value = getattr(request, field)
        if value is not None and not _within(value, allowed):
            raise FluxdropError(f"{allowed.key} is {value}; possible is {allowed}.", kind="prompt")


def _within(value: float, allowed: Range) -> bool:
    if not math.isfinite(value) or not allowed.low <= value <= allowed.high:
        return False
    return allowed.multiple == 1 or value % allowed.multiple == 0
