"""What the decoders of all formats have in common: the bounds that they keep, and what they return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from fluxdrop.errors import FluxdropError
from fluxdrop.preprocess.deep import Deep

MAX_PROFILE_BYTES = 1 << 22
"""A larger colour profile is not used. Those of printers have up to 3 MB."""

ANIMATION = "It has several pictures (an animation): the first one was taken."
"""The warning of a picture that moves."""

_MAX_PIXEL_BYTES = 6
"""Of each of the most pixels there may be: RGB with 16 bits."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a picture may cost, and who is told what was assumed of it."""

    name: str
    """What errors call the file."""
    max_pixels: int
    warn: Callable[[str], None]
    """Called with each warning, a sentence."""
    reserve: Callable[[int], None] = lambda _pixels: None
    """Called with the number of pixels before memory is taken for them; may wait until there is some."""
    shrink: Callable[[tuple[int, int]], float] = lambda _size: 1
    """Called with the size of a JPEG, upright; returns how many times smaller it may be decoded."""

    def check(self, width: int, height: int) -> None:
        """Raise FluxdropError if a picture of this size is too large. Call it before memory is taken for it."""
        if width * height > self.max_pixels:
            raise FluxdropError(
                f"{self.name} has {width} x {height} pixels, over the limit of {self.max_pixels:,}",
                hint="Make it smaller, or raise max_pixels in fluxdrop.toml.",
                kind="picture",
            )
        self.reserve(width * height)

    def check_samples(self, width: int, height: int, pixel_bytes: int) -> None:
        """Raise FluxdropError if the samples of a picture, *pixel_bytes* for each pixel, take too much memory."""
        if width * height * pixel_bytes > _MAX_PIXEL_BYTES * self.max_pixels:
            raise FluxdropError(
                f"{self.name} has {width} x {height} pixels of {pixel_bytes} bytes, over the limit of"
                f" {_MAX_PIXEL_BYTES * self.max_pixels:,} bytes",
                hint="Save it with 8 or 16 bits, make it smaller, or raise max_pixels in fluxdrop.toml.",
                kind="picture",
            )

    def refusal(self, what: str) -> FluxdropError:
        """Return the error for a file of which *what* is true, such as ``has 7 channels``."""
        return FluxdropError(
            f"{self.name} {what}", hint="Save it as PNG and drop that.", kind="picture"
        )


class Decoded(NamedTuple):
    """A picture as its file has it."""

    image: Image.Image | Deep
    """The pixels; a Pillow picture may have any mode."""
    profile: bytes = b""
    """Its ICC profile; empty if it has none."""
    orientation: int = 1
    """How it has to be turned, as in EXIF: 1 to 8."""
    scale: int = 1
    """How many pixels of the file's a side of each pixel stands for."""
    size: tuple[int, int] = (0, 0)
    """The file's width and height, upright, if it was decoded smaller."""


def by_pillow(image: Image.Image, bounds: Bounds) -> Decoded:
    """Load *image*, which Pillow has opened, if it is within *bounds*."""
    bounds.check(*image.size)
    image.load()
    return Decoded(image, profile_of(image), orientation_of(image, bounds))


def profile_of(image: Image.Image) -> bytes:
    """Return the ICC profile of *image*, or nothing."""
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) else b""


def orientation_of(image: Image.Image, bounds: Bounds) -> int:
    """Return the orientation that the EXIF data of *image* has; 1 if they are damaged, with a warning."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # Pillow raises what it likes for damaged data.
        bounds.warn("Its EXIF data are damaged, so it was not turned upright.")
        return 1
    return orientation if isinstance(orientation, int) else 1
