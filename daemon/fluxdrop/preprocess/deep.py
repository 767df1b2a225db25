"""Pictures with more than 8 bits a channel, which Pillow has no mode for if they have colours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Band = NDArray[np.float32]
"""One channel: (height, width), values of 0 to 255."""

_LUMA = (0.299, 0.587, 0.114)
"""Rec. 601, as Pillow converts RGB to L."""
_MODES = ("L", "LA", "RGB", "RGBA")


_WHITES = ((1, 2.0), (255, 280.0), (4095, 4500.0), (65535, 72000.0))
"""The whites of floats, and the largest value that filters may have made of each."""
_MAX_SHARE_ABOVE = 0.25
_MAX_BELOW = 0.1
"""How far below 0 values may lie, as a share of the largest."""


class RangeError(ValueError):
    """The values of a picture are no brightness; *hint* says what to do."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


class Deep:
    """A picture with more than 8 bits a channel.

    Args:
        pixels: Shape (height, width, channels), where the channels are those of L, LA, RGB or RGBA.
        white: The value of full intensity; that of black is 0.
    """

    def __init__(self, pixels: NDArray[Any], white: float) -> None:
        self.pixels = pixels
        self.white = white

    @property
    def mode(self) -> str:
        """The channels, by Pillow's name."""
        return _MODES[self.pixels.shape[2] - 1]

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[0])

    def band(self, channel: int) -> Band:
        """Return a channel."""
        scaled: Band = self.pixels[..., channel].astype(np.float32)
        scaled *= np.float32(255 / self.white)
        return np.clip(scaled, 0, 255, out=scaled)

    def turned(self, orientation: int) -> Deep:
        """Return it upright, where EXIF has this *orientation*."""
        turn = _TURNS.get(orientation)
        return self if turn is None else Deep(turn(self.pixels), self.white)

    def opaque_bands(self, mode: str, background: tuple[int, int, int]) -> list[Band]:
        """Return its channels in *mode*, L or RGB, on the colour *background*."""
        count = self.pixels.shape[2]
        if count in (2, 4):
            alpha: Band = self.band(count - 1) / np.float32(255)
            colours = (
                [_luma([np.float32(value) for value in background])] if count == 2 else background
            )
            bands: list[Band] = [
                self.band(number) * alpha + (np.float32(1) - alpha) * np.float32(colour)
                for number, colour in enumerate(colours)
            ]
        else:
            bands = [self.band(number) for number in range(count)]
        if mode == "L":
            return bands if len(bands) == 1 else [_luma(bands)]
        return bands * 3 if len(bands) == 1 else bands

    def eight_bit(self) -> Image.Image:
        """Return it with 8 bits a channel, rounded."""
        bands = [
            Image.fromarray(np.rint(self.band(number)).astype(np.uint8))
            for number in range(self.pixels.shape[2])
        ]
        return bands[0] if len(bands) == 1 else Image.merge(self.mode, bands)

    def high_bytes(self) -> Image.Image:
        """Return it with 8 bits a channel, the high bytes of 16, whatever its white is."""
        if self.pixels.dtype != np.uint16:
            return self.eight_bit()
        bands = [
            Image.fromarray((self.pixels[..., number] >> 8).astype(np.uint8))
            for number in range(self.pixels.shape[2])
        ]
        return bands[0] if len(bands) == 1 else Image.merge(self.mode, bands)


def of_integers(
    pixels: NDArray[Any], warn: Callable[[str], None], white: float | None = None
) -> Deep:
    """Return the picture of integers.

    If *white* is not known it is the largest number of their type, except where the picture is so dark that it must
    be one of fewer bits: many cameras and scanners write 12 bits into 16 as they are. *warn* is told so, and of each
    picture that stays dark.

    Raises:
        RangeError: There are negative numbers.
    """
    if pixels.dtype.kind == "i" and pixels.size and pixels.min() < 0:
        raise RangeError(
            "it has negative values, which no picture has", "Save it with values from 0 to 65535."
        )
    if white is not None:
        return Deep(pixels, white)
    bits = pixels.dtype.itemsize * 8
    largest = int(pixels.max()) if pixels.size else 0
    for fewer in (8, 12, 16):
        if fewer < bits and 0 < largest < 1 << fewer:
            warn(
                f"Its values have up to {bits} bits and none is over {largest}: {2**fewer - 1} was taken for white."
            )
            return Deep(pixels, 2.0**fewer - 1)
    of_type = 2 ** (bits - (pixels.dtype.kind == "i")) - 1
    # Alpha, which is the last of two or four channels, is no brightness.
    colours = pixels[..., :-1] if pixels.shape[2] in (2, 4) else pixels
    brightest = int(colours.max()) if pixels.size else 0
    if 0 < brightest <= of_type // 2:
        warn(f"Its values reach {brightest} of {of_type}, which was taken for white: it is dark.")
    return Deep(pixels, of_type)


def of_floats(pixels: NDArray[Any], warn: Callable[[str], None]) -> Deep:
    """Return the picture of floats: 1 is white, or 255, 4095 or 65535 where they reach that far.

    Filters make some values a little too large or negative. Such values are cut off. *warn* is told so, and of each
    white other than 1.

    Raises:
        RangeError: They are not finite, or negative or large beyond that.
    """
    if not pixels.size:
        return Deep(pixels.astype(np.float32), 1)
    if wrong := int(np.count_nonzero(~np.isfinite(pixels))):
        raise RangeError(
            f"{wrong:,} of its {pixels.size:,} values are not finite (NaN or infinite)",
            "Save it with values from 0 to 1 everywhere.",
        )
    smallest, largest = float(pixels.min()), float(pixels.max())
    white = _white_of(pixels, largest)
    if white is None or smallest < -_MAX_BELOW * largest:
        raise RangeError(
            f"its values lie between {smallest:g} and {largest:g}, which is no range of a picture",
            "Save it with values from 0 to 1.",
        )
    if white > 1:
        dark = ", so it is dark" if 2 * largest < white else ""
        warn(f"Its values reach {largest:g}: {white} was taken for white{dark}.")
    if largest > white:
        above = int(np.count_nonzero(pixels > white))
        warn(
            f"{above:,} of its {pixels.size:,} values are over {white}, up to {largest:g}: they were taken for {white}."
        )
    if smallest < 0:
        below = int(np.count_nonzero(pixels < 0))
        warn(
            f"{below:,} of its {pixels.size:,} values are negative, down to {smallest:g}: they were taken for 0."
        )
    values = np.clip(pixels.astype(np.float32), 0, white)
    if white > 1 and pixels.shape[2] in (2, 4) and pixels[..., -1].max() <= 1:
        # Its alpha has a range of its own, and all of it would be transparent.
        values[..., -1] *= white
    return Deep(values, white)


def _white_of(pixels: NDArray[Any], largest: float) -> int | None:
    """Return the white of floats up to *largest*; None if they are no brightness."""
    for white, most in _WHITES:
        if largest <= white:
            return white
        if largest <= most and np.count_nonzero(pixels > white) <= _MAX_SHARE_ABOVE * pixels.size:
            return white
        if largest <= 2:
            # As levels of 255 they would be black.
            return None
    return None


def _luma(bands: list[Any]) -> Any:
    red, green, blue = (band * np.float32(part) for band, part in zip(bands, _LUMA, strict=True))
    return red + green + blue


_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda pixels: np.rot90(pixels),
}
