"""What came back from a host, checked before the daemon believes it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from io import BytesIO

from fluxdrop.generate.messages import GeneratedImage, unpack_images
from fluxdrop.processes.wire import WireError

_MAX_BYTES_PER_PIXEL = 8
"""More than any PNG of 8 bits that is no attack: a stored pixel takes 3 or 4 bytes."""
_TEXT_BYTES = 1 << 20


def checked_images(
    payload: bytes, digests: Sequence[str], count: int, max_pixels: int
) -> list[GeneratedImage]:
    """Return the *count* pictures in *payload*, each a whole PNG with its digest in *digests*.

    Args:
        payload: What `fluxdrop.generate.messages.pack_images` made.
        digests: The SHA-256 of each PNG, in hex.
        count: How many were ordered.
        max_pixels: The most pixels that a picture may have.

    Raises:
        WireError: Anything of this is not so.
    """
    images = unpack_images(payload)
    if not len(images) == len(digests) == count:
        raise WireError(f"{len(images)} pictures and {len(digests)} digests for {count} orders")
    for image, digest in zip(images, digests, strict=True):
        if hashlib.sha256(image.png).hexdigest() != digest:
            raise WireError("a picture arrived with other bytes than were sent")
        _check_png(image, max_pixels)
    return images


def _check_png(image: GeneratedImage, max_pixels: int) -> None:
    """Check the chunks of a picture and its size, without decoding its pixels."""
    from PIL import Image

    size = (image.generated.width, image.generated.height)
    pixels = size[0] * size[1]
    if not 0 < pixels <= max_pixels:
        raise WireError(f"a picture of {size[0]} x {size[1]} pixels, more than max_pixels")
    if len(image.png) > _MAX_BYTES_PER_PIXEL * pixels + _TEXT_BYTES:
        raise WireError(f"a picture of {len(image.png)} bytes for {pixels} pixels")
    try:
        with Image.open(BytesIO(image.png), formats=["PNG"]) as png:
            real_size = png.size
            png.verify()
    except Exception as error:
        raise WireError(f"a picture that is no whole PNG: {error}") from error
    if real_size != size:
        raise WireError(f"a PNG of {real_size} for a picture of {size}")
