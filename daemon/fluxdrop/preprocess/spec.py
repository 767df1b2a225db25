"""The ``[input]`` table of a bundle's model.toml: how a picture becomes the model's input."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Size = Annotated[int, Meta(ge=1, le=8192)]
# `Size | tuple[Size, Size]` crashes msgspec 0.22 if Python collects garbage while the type is built.
SizePair = Annotated[tuple[Size, ...], Meta(min_length=2, max_length=2)]
_LACKING = {"opencv": ("hamming",), "torch": ("hamming", "box")}
"""The filters that a resampler does not have."""
# What float32, in which the tensors are, can hold.
PositiveFloat = Annotated[float, Meta(ge=1e-30, le=1e30)]
Float = Annotated[float, Meta(ge=-1e30, le=1e30)]


class InputSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a picture is resized and normalised.

    Per channel, a pixel value p of 0 to 255 becomes ``(p / scale - mean) / std``.
    """

    size: tuple[Size, Size]
    """Width and height."""
    mode: Literal["L", "RGB", "BGR"] = "RGB"
    resize: Literal["stretch", "crop", "letterbox", "fit"] = "stretch"
    """How the picture is scaled before the centre of *size* is taken.

    ``stretch`` ignores the aspect ratio. ``crop`` scales the picture to cover *resize_to*, and ``letterbox`` to fit
    into it. What of *size* is then not covered is filled with *background*. ``fit`` first takes the largest part in
    the middle that has the aspect ratio of *resize_to*.
    """
    resize_to: Size | SizePair | None = None
    """The size before the centre is taken: width and height, or one number; by default *size*.

    Of a number n, ``crop`` makes the shorter side n pixels long and ``letterbox`` the longer one. ``stretch`` and
    ``fit`` make both so.
    """
    pad: Literal["center", "corner"] = "center"
    """Where a picture lies that does not cover *size*: ``corner`` is the upper left."""
    filter: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bilinear"
    resampler: Literal["pillow", "torchvision", "torch", "opencv"] = "pillow"
    """The library whose resizing is done.

    ``pillow`` is Pillow with the sizes and offsets of transformers. ``torchvision`` is torchvision with Pillow's
    pictures, and timm: the arithmetic is the same, but lengths and the place of the centre are rounded in another way.
    ``torch`` is torchvision with tensors of uint8, and the fast image processors of transformers. All three smooth
    before they shrink (antialias). ``opencv`` does not, except with ``box``, which is INTER_AREA.
    """
    scale: PositiveFloat = 255.0
    mean: tuple[Float, ...] = (0.0,)
    std: tuple[PositiveFloat, ...] = (1.0,)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    background: Annotated[str, Meta(pattern="^#[0-9a-fA-F]{6}$")] = "#ffffff"
    """The colour behind transparent pixels and around a picture that does not cover *size*."""

    @property
    def channels(self) -> int:
        """The number of channels: 1 or 3."""
        return 1 if self.mode == "L" else 3

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of one picture's tensor: a batch of one, in *layout*."""
        width, height = self.size
        if self.layout == "NCHW":
            return (1, self.channels, height, width)
        return (1, height, width, self.channels)

    def problem(self) -> str:
        """Check the values against each other; return what is wrong, as a sentence, or an empty string."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                needed = "1" if self.channels == 1 else f"1 or {self.channels}"
                return f"input.{name} has {len(values)} values; mode {self.mode} needs {needed}."
        lacking = _LACKING.get(self.resampler, ())
        if self.filter in lacking:
            return f"input.filter is {self.filter}, which the resampler {self.resampler} does not have."
        return ""
