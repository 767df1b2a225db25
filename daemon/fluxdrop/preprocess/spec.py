"""How a picture becomes a model's input: the ``[input]`` table of a bundle's model.toml."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Size = Annotated[int, Meta(ge=1, le=8192)]
Deviation = Annotated[float, Meta(gt=0)]


class InputSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pixel p of 0 to 255 becomes ``(p / scale - mean) / std``, channel by channel."""

    size: tuple[Size, Size]
    """Width and height."""
    mode: Literal["L", "RGB", "BGR"] = "RGB"
    resize: Literal["stretch", "crop", "letterbox"] = "stretch"
    """stretch to the size; crop: the shorter side to the size, then the centre; letterbox: all of
    it, on the background."""
    filter: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bilinear"
    scale: Deviation = 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Deviation, ...] = (1.0,)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    background: Annotated[str, Meta(pattern="^#[0-9a-fA-F]{6}$")] = "#ffffff"
    """What shows through transparent pixels and around a letterboxed picture."""

    @property
    def channels(self) -> int:
        """How many numbers a pixel has."""
        return 1 if self.mode == "L" else 3

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of one picture's tensor, a batch of one."""
        width, height = self.size
        if self.layout == "NCHW":
            return (1, self.channels, height, width)
        return (1, height, width, self.channels)

    def problem(self) -> str:
        """What is wrong with the spec in itself, as a sentence; empty if nothing is."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                needed = "1" if self.channels == 1 else f"1 or {self.channels}"
                return f"input.{name} has {len(values)} values; mode {self.mode} needs {needed}."
        if not all(map(math.isfinite, (self.scale, *self.mean, *self.std))):
            return "input.scale, input.mean or input.std is not finite."
        return ""
