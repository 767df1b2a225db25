"""The parameters of pictures: those that a prompt gives, those that were used, and their valid ranges."""

from __future__ import annotations

import math
import secrets
import sys
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from fluxdrop.errors import FluxdropError


class PromptParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a prompt gives for one picture; None stands for the pipeline's own value, or for a random seed."""

    prompt: str
    negative_prompt: str = ""
    no_negative_prompt: bool = False
    """Whether the prompt says that it has no negative prompt, which a folder's does not replace."""
    steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    random_seed: bool = False
    """Whether the prompt says that its seed is random, which a folder's does not replace."""
    width: int | None = None
    height: int | None = None
    sampler: str | None = None
    pipeline: str | None = None

    def with_seed(self, seed: int) -> PromptParameters:
        """Return these values with *seed* if they have none."""
        if self.seed is not None:
            return self
        return msgspec.structs.replace(self, seed=seed, random_seed=False)


class GenerationParameters(msgspec.Struct, frozen=True, kw_only=True):
    """The resolved values that a picture was made with; the same values make the same picture."""

    prompt: str
    negative_prompt: str
    steps: int
    guidance_scale: float | None
    """None where the pipeline has none."""
    seed: int
    width: int
    height: int
    sampler: str


class GeneratorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The pipeline that made a picture.

    *host* is the host of the cluster that made it, and *host_class* names that host's GPU, dtype and versions: hosts of
    one class make the same bytes of the same values. Both are null where the daemon's own machine made it.
    """

    name: str
    """Its configured name, by which a prompt file's ``Model`` selects it."""
    pipeline: str
    """The diffusers class."""
    model: str
    """The embedded name, the name of the folder or file, or the hub id."""
    revision: str | None
    """The commit on the hub; None for a local pipeline."""
    device: str
    dtype: str
    batch: int = 1
    """The number of pictures that were made in one run."""
    host: str | None = None
    """The host of the cluster that made it; None without a cluster."""
    host_class: str | None = None
    """The host's GPU and versions in short: within a class the same values make the same bytes."""


class WeightedText(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a prompt that was given another weight than 1, or a part between two ``AND``."""

    text: str
    weight: float
    negative: bool = False
    """Whether it is of the negative prompt."""


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """How a picture was made, and what came out."""

    parameters: GenerationParameters
    generator: GeneratorInfo
    warnings: list[str]
    width: int
    height: int
    nsfw: bool | None
    """Whether the pipeline's safety checker flagged the picture; None where it has no checker."""
    source_sha256: str | None = None
    """The digest of the prompt file, in hex: a picture of another version of it is not taken up again."""
    prompt_weights: list[WeightedText] = []


class Range(NamedTuple):
    """The valid values of a parameter: *low* to *high*, both included, in multiples of *multiple*."""

    key: str
    """The parameter's key in infotext."""
    low: float
    high: float
    multiple: int = 1

    def __str__(self) -> str:
        steps = f" in steps of {self.multiple}" if self.multiple > 1 else ""
        return f"{self.low} to {self.high}{steps}"

    def up_to(self, limit: float) -> Range:
        """Return this range without the values above *limit*."""
        return self._replace(high=min(self.high, limit))


RANGES = {
    "steps": Range("Steps", 1, 1000),
    "guidance_scale": Range("CFG scale", 0, 100),
    "seed": Range("Seed", 0, 2**64 - 1),
    "width": Range("Size (width)", 8, 8192, multiple=8),
    "height": Range("Size (height)", 8, 8192, multiple=8),
}
BATCH_SIZES = Range("Batch size", 1, 100)
UNLIMITED = sys.maxsize
"""The value of a limit in the settings that does not limit."""


def random_seed() -> int:
    """Return a random seed of 32 bits, which every program that reads infotext accepts."""
    return secrets.randbits(32)


def check(
    parameters: PromptParameters | GenerationParameters, shown: Mapping[str, Range] = RANGES
) -> None:
    """Check the prompts for emptiness and NUL, and the numbers against their `RANGES`.

    *shown* are the ranges that errors name.

    Raises:
        FluxdropError: Kind ``prompt``, when a value is invalid. The message names the key, the value
            and the valid range.
    """
    if not parameters.prompt.strip():
        raise FluxdropError(
            "The prompt is empty.",
            hint="Write what the picture should show before the line of parameters.",
            kind="prompt",
        )
    for field in ("prompt", "negative_prompt"):
        if "\0" in getattr(parameters, field):
            raise FluxdropError(
                f"The {field.replace('_', ' ')} has a NUL character.", kind="prompt"
            )
    for field, allowed in RANGES.items():
        value = getattr(parameters, field)
        if value is not None and not _within(value, allowed):
            raise FluxdropError(f"{allowed.key} is {value}; must be {shown[field]}.", kind="prompt")


def _within(value: float, allowed: Range) -> bool:
    if not math.isfinite(value) or not allowed.low <= value <= allowed.high:
        return False
    return allowed.multiple == 1 or value % allowed.multiple == 0
