"""JPEGs that were decoded at a half, a quarter or an eighth of their size, as the setting ``fast_jpeg`` asks.

libjpeg then computes fewer pixels, each from the low frequencies of those for which it stands: 2, 4 or 8 a side. What
is lost would nearly all have been lost by the resize that follows, but not exactly in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image

from fluxdrop.preprocess.geometry import Box, Size, source_of
from fluxdrop.preprocess.spec import InputSpec

SCALES = (8, 4, 2)
"""How many times smaller a JPEG can be decoded, besides 1."""
MARGIN = 2
"""How many times larger than the resize needs it a side is decoded at least."""
# EXIF's orientations by which the first column, or row, of the file becomes the last one.
_RIGHT_TO_LEFT = (2, 3, 6, 7)
_UPSIDE_DOWN = (3, 4, 7, 8)


@dataclass(frozen=True, slots=True)
class Reduced:
    """A picture of which fewer pixels were decoded than it has."""

    image: Image.Image
    """The pixels that were decoded, upright, with 8 bits a channel."""
    size: Size
    """The size that the picture has, upright."""
    scale: int
    """How many of its pixels a side of a decoded one stands for: 2, 4 or 8."""
    left: float
    """Where in the columns of `image` the picture begins.

    If its side is no multiple of `scale`, the file's last column covers more than the picture has.
    """
    top: float
    """Where in the rows of `image` it begins, in the same way."""

    @property
    def width(self) -> int:
        """Of the picture, in pixels."""
        return self.size[0]

    @property
    def height(self) -> int:
        """Of the picture, in pixels."""
        return self.size[1]

    def box(self, part: Box) -> Box:
        """Return where in `image` the *part* of the picture lies."""
        return (
            max(0.0, self.left + part[0] / self.scale),
            max(0.0, self.top + part[1] / self.scale),
            min(float(self.image.width), self.left + part[2] / self.scale),
            min(float(self.image.height), self.top + part[3] / self.scale),
        )


def reduced(image: Image.Image, size: Size, scale: int, orientation: int) -> Reduced:
    """Return the picture that has *size*, was decoded at 1/*scale*, and was turned upright from *orientation*."""
    beyond = image.width - size[0] / scale, image.height - size[1] / scale
    return Reduced(
        image,
        size,
        scale,
        beyond[0] if orientation in _RIGHT_TO_LEFT else 0.0,
        beyond[1] if orientation in _UPSIDE_DOWN else 0.0,
    )


def scale_for(size: Size, specs: Iterable[InputSpec], most: int = SCALES[0]) -> float:
    """Return how many times smaller a picture of this *size* may be decoded for models with these *specs*.

    What is decoded is at least `MARGIN` times as wide and as high as each model's resize makes it. A resize that does
    not smooth needs every pixel: OpenCV's, and that by the filter ``nearest``.

    Args:
        size: Width and height, upright.
        specs: Those of all models that are to see it.
        most: The largest number that is returned.
    """
    return min([most, *(_reduction(size, spec) / MARGIN for spec in specs)])


def _reduction(size: Size, spec: InputSpec) -> float:
    """Return how many of a picture's pixels a pixel of its resized side stands for, on the side with fewer."""
    if spec.resampler == "opencv" or spec.filter == "nearest":
        return 1.0
    (left, top, right, bottom), scaled = source_of(size, spec)
    return min((right - left) / scaled[0], (bottom - top) / scaled[1])
