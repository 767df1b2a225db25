"""Decode the first picture of a GIF; comments and further pictures are skipped, however many they are.

Format: https://www.w3.org/Graphics/GIF/spec-gif89a.txt.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import IO

from PIL import GifImagePlugin

from fluxdrop.preprocess.decoded import ANIMATION, Bounds, Decoded, by_pillow

_HEADER_BYTES = 13
_EXTENSION, _IMAGE, _TRAILER = b"\x21", b"\x2c", b"\x3b"
_GRAPHIC_CONTROL = b"\xf9"


def decode(file: IO[bytes], bounds: Bounds) -> Decoded:
    """Decode a GIF; of an animation, which is a warning, the first picture.

    Raises:
        FluxdropError: It is over the *bounds* or has no picture. Besides, what Pillow raises.
    """
    header = file.read(_HEADER_BYTES)
    screen = struct.unpack_from("<HHB", header.ljust(_HEADER_BYTES, b"\0"), 6)
    bounds.check(*screen[:2])
    parts = [header, file.read(table_bytes(screen[2]))]
    control = b""
    while (kind := file.read(1)) == _EXTENSION:
        label = file.read(1)
        data = _blocks(file, keep=label == _GRAPHIC_CONTROL)
        if data:
            control = kind + label + data
    if kind != _IMAGE:
        raise bounds.refusal("is not a picture: it is a GIF without one")
    descriptor = file.read(9)
    left, top, width, height, flags = struct.unpack("<HHHHB", descriptor.ljust(9, b"\0"))
    # A picture that is larger than the screen makes the screen larger.
    bounds.check(max(screen[0], left + width), max(screen[1], top + height))
    colours = file.read(table_bytes(flags))
    parts += [control, _IMAGE, descriptor, colours, file.read(1), _blocks(file, keep=True)]
    if _has_another(file):
        bounds.warn(ANIMATION)
    with GifImagePlugin.GifImageFile(BytesIO(b"".join([*parts, _TRAILER]))) as image:
        return by_pillow(image, bounds)


def table_bytes(flags: int) -> int:
    """Return the size of the colour table that the *flags* of a screen or an image announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _blocks(file: IO[bytes], *, keep: bool) -> bytes:
    """Read data in blocks up to the empty one; return them if they are to be kept."""
    parts = []
    while size := file.read(1):
        block = file.read(size[0])
        if keep:
            parts += [size, block]
        if size == b"\0":
            break
    return b"".join(parts)


def _has_another(file: IO[bytes]) -> bool:
    while (kind := file.read(1)) == _EXTENSION:
        file.read(1)
        _blocks(file, keep=False)
    return kind == _IMAGE
