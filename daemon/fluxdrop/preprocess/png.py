"""Decode PNGs: without their metadata, and with all of 16 bits.

Format: https://www.w3.org/TR/png-3/.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

from fluxdrop.preprocess.decoded import (
    ANIMATION,
    MAX_PROFILE_BYTES,
    Bounds,
    Decoded,
    by_pillow,
    orientation_of,
)
from fluxdrop.preprocess.deep import Deep, of_integers

_SIGNATURE_BYTES = 8
_MAX_EXIF_BYTES = 1 << 16
_MAX_CHUNKS = 1 << 20
_XMP = b"XML:com.adobe.xmp\0\0"

# Colour types of pictures with 16 bits.
_GREY, _RGB, _GREY_ALPHA, _RGBA = 0, 2, 4, 6
_CHANNELS = {_GREY: 1, _RGB: 3, _GREY_ALPHA: 2, _RGBA: 4}


class _Essence(NamedTuple):
    """A PNG without what is not needed for its pixels."""

    file: IO[bytes]
    profile: bytes
    """Its colour profile."""
    header: bytes
    """The data of its IHDR; empty if there is none."""
    transparent: bytes
    """The data of its tRNS; empty if there is none."""


def decode(file: IO[bytes], bounds: Bounds) -> Decoded:
    """Decode a PNG. Raises FluxdropError if it is over the *bounds*, and what Pillow raises."""
    essence = _essence(file, bounds)
    with PngImagePlugin.PngImageFile(essence.file) as image:
        if essence.header[8:9] != b"\x10":
            return by_pillow(image, bounds)._replace(profile=essence.profile)
        bounds.check(*image.size)
        bounds.check_samples(*image.size, 2 * _CHANNELS.get(essence.header[9], 1))
        deep = _sixteen_bits(essence, bounds)
        # EXIF data may follow the pixels.
        image.load()
        return Decoded(deep, essence.profile, orientation_of(image, bounds))


def _essence(file: IO[bytes], bounds: Bounds) -> _Essence:
    """Return *file* without text and other metadata, however large.

    A file that ends within a chunk is returned as it is.
    """
    kept: list[tuple[int, int]] = [(0, _SIGNATURE_BYTES)]
    offset = _SIGNATURE_BYTES
    profile = header = transparent = b""
    is_less = is_animated = False
    for _ in range(_MAX_CHUNKS):
        file.seek(offset)
        head = file.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        end = offset + length + 12
        if kind == b"iCCP":
            profile = _profile(file.read(min(length, MAX_PROFILE_BYTES)), bounds)
        elif kind == b"IHDR" and not header:
            header = file.read(min(length, 13))
        elif kind == b"acTL" and int.from_bytes(file.read(min(length, 4)), "big") > 1:
            is_animated = True
        elif kind == b"tRNS":
            transparent = file.read(min(length, 256))
        if _is_needed(kind, length, file):
            kept.append((offset, end))
        else:
            is_less = True
        offset = end
        if kind == b"IEND":
            break
    else:
        raise bounds.refusal(f"has more than {_MAX_CHUNKS:,} chunks")
    if is_animated:
        bounds.warn(ANIMATION)
    file.seek(0)
    if not is_less:
        return _Essence(file, profile, header, transparent)
    parts = []
    for start, end in kept:
        file.seek(start)
        parts.append(file.read(end - start))
    return _Essence(BytesIO(b"".join(parts)), profile, header, transparent)


def _is_needed(kind: bytes, length: int, file: IO[bytes]) -> bool:
    """Return whether a chunk matters for the pixels; *file* is at its data or beyond."""
    is_ancillary = bool(kind[0] & 0x20)
    if not is_ancillary or kind == b"tRNS":
        return True
    if kind == b"eXIf":
        return length <= _MAX_EXIF_BYTES
    # It may have the orientation.
    return kind == b"iTXt" and length <= _MAX_EXIF_BYTES and file.read(len(_XMP)).startswith(_XMP)


def _profile(data: bytes, bounds: Bounds) -> bytes:
    """Return the colour profile in the *data* of an iCCP chunk."""
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(data.partition(b"\0")[2][1:], MAX_PROFILE_BYTES)
    except zlib.error:
        profile = b""
    if not profile or not unpacker.eof:
        bounds.warn("Its colour profile is damaged or too large, and was not used.")
        return b""
    return profile


def _sixteen_bits(essence: _Essence, bounds: Bounds) -> Deep:
    """Return the pixels of a PNG with 16 bits."""
    colour = essence.header[9]
    if colour == _GREY:
        grey = np.asarray(_unpacked(essence.file, "I;16", "I;16B"))
        pixels = grey[..., np.newaxis]
    elif colour == _GREY_ALPHA:
        # Four bytes a pixel, which Pillow unpacks as four channels.
        pairs = np.asarray(_unpacked(essence.file, "RGBA", "RGBA")).astype(np.uint16)
        pixels = pairs[..., ::2] << 8 | pairs[..., 1::2]
    else:
        mode = "RGB" if colour == _RGB else "RGBA"
        # Pillow takes the high byte of big-endian numbers, and that of little-endian ones is the other.
        pixels = np.asarray(_unpacked(essence.file, mode, f"{mode};16B")).astype(np.uint16)
        pixels <<= 8
        pixels |= np.asarray(_unpacked(essence.file, mode, f"{mode};16L"))
    deep = of_integers(pixels, bounds.warn)
    key = np.frombuffer(essence.transparent[: 2 * pixels.shape[2]], ">u2")
    if colour in (_GREY, _RGB) and len(key) == pixels.shape[2]:
        alpha = (pixels != key).any(axis=2, keepdims=True)
        opaque = alpha * np.uint16(deep.white)
        deep = Deep(np.concatenate([pixels, opaque], axis=2).astype(np.uint16), deep.white)
    return deep


def _unpacked(file: IO[bytes], mode: str, raw_mode: str) -> Image.Image:
    """Return the pixels of *file*, unpacked as *raw_mode*, one of Pillow's, says."""
    file.seek(0)
    image = PngImagePlugin.PngImageFile(file)
    image._mode = mode
    image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
    image.load()
    return image
