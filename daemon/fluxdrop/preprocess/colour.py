"""Convert the colours of pictures of a wide gamut to sRGB, as viewers do.

Other profiles, such as those of monitors and of grey, change nothing: a model's own pipeline ignores them, and its
answer would be another one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageCms

from fluxdrop.preprocess.deep import Deep

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_WIDE = 1.1
"""By what factor a wide gamut exceeds that of sRGB; that of Adobe RGB and of Display P3 is 1.3."""
_SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
"""The mode of the pictures that a profile is for, by the colour space that its header names."""


def to_srgb(
    image: Image.Image | Deep, profile: bytes, warn: Callable[[str], None]
) -> Image.Image | Deep:
    """Return *image* in sRGB.

    Args:
        image: A picture of mode L, LA, RGB, RGBA, CMYK or LAB.
        profile: Its ICC profile, or nothing. One for pictures of another mode, or one that is damaged, changes nothing.
        warn: Called with a sentence if the profile is damaged or applied.

    Returns:
        It itself if its profile has no wide gamut; otherwise a picture of the same mode, or of RGB. A deep one gets
        8 bits.
    """
    if image.mode == "LAB":
        assert isinstance(image, Image.Image)
        lab = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        return _applied(image, lab)
    mode = _SPACES.get(profile[16:20])
    colours = image.mode.removesuffix("A")
    if not profile or (mode is not None and mode != colours):
        return image
    try:
        if mode is None:
            raise ImageCms.PyCMSError("of an unknown colour space")
        transform = _transform(profile, mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        warn("Its colour profile is damaged, and was not used.")
        return image
    if transform is None:
        return image
    if isinstance(image, Deep):
        warn("Its colours were converted to sRGB with 8 bits, because of its colour profile.")
        image = image.eight_bit()
    else:
        warn("Its colours were converted to sRGB, because of its colour profile.")
    alpha = image.getchannel("A") if image.mode.endswith("A") else None
    made = _applied(image.convert(mode), transform)
    if colours == "L":
        made = made.convert("L")
    if alpha is not None:
        made.putalpha(alpha)
    return made


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    made = ImageCms.applyTransform(image, transform)
    assert made is not None
    made.info.pop("icc_profile", None)
    return made


@lru_cache(maxsize=4)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from *profile* to sRGB; None if it has no wide gamut.

    Raises:
        PyCMSError: The profile is damaged.
        OSError: In the same case.
    """
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "L" or (mode == "RGB" and _gamut(source) < _WIDE * _gamut(_SRGB)):
        return None
    return transform


def _gamut(profile: ImageCms.ImageCmsProfile) -> float:
    """Return the area of the triangle of *profile*'s primaries in CIE 1931 xy; infinity if it names none."""
    facts = profile.profile
    primaries = (facts.red_colorant, facts.green_colorant, facts.blue_colorant)
    if None in primaries:
        return math.inf
    (rx, ry), (gx, gy), (bx, by) = (
        (x / (x + y + z), y / (x + y + z)) for (x, y, z), _ in filter(None, primaries)
    )
    return abs((gx - rx) * (by - ry) - (bx - rx) * (gy - ry)) / 2
