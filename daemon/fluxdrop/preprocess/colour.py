"""Convert the colours of pictures to sRGB, as viewers do, where a colour profile says that they are others."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

from fluxdrop.preprocess.deep import Deep

_SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
"""The mode of the pictures that a profile is for, by the colour space that its header names."""


def to_srgb(
    image: Image.Image | Deep, profile: bytes, warn: Callable[[str], None]
) -> Image.Image | Deep:
    """Return *image* in sRGB.

    Args:
        image: A picture of mode L, LA, RGB, RGBA, CMYK or LAB.
        profile: Its ICC profile, or nothing. One for pictures of another mode, or one that is damaged, changes nothing.
        warn: Called with a sentence if the profile is damaged, or if the picture loses depth.

    Returns:
        It itself if its profile is that of sRGB; otherwise a picture of the same mode, or of RGB. A deep one gets
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
    """Return the transform from *profile* to sRGB; None if it changes no colour by more than a rounding error.

    Raises:
        PyCMSError: The profile is damaged.
        OSError: In the same case.
    """
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return transform
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    if mode == "RGB":
        cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
        colours = Image.fromarray(cube.reshape(len(levels), -1, 3))
    else:
        colours = Image.fromarray(levels[np.newaxis])
    made = np.asarray(_applied(colours, transform)).astype(int)
    changes = np.abs(made - np.asarray(colours.convert("RGB")))
    return transform if changes.max() > 1 else None
