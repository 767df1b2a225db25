"""Decode JPEG 2000, after its markers have shown that OpenJPEG will take no more memory than the pixels need.

OpenJPEG makes structures for each tile, component, precinct and code-block before it decodes anything, and a file of a
few bytes can announce billions of them. Format: ITU-T T.800, annexes A and I.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

import numpy as np
from PIL import Jpeg2KImagePlugin

from fluxdrop.preprocess.decoded import Bounds, Decoded, by_pillow
from fluxdrop.preprocess.deep import of_integers

_START, _SIZ, _COD, _COC, _SOT, _SOD, _EOC = 0xFF4F, 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_MAX_BOXES = 1000
_MAX_MARKERS = 1 << 17
_MAX_COMPONENTS = 4
_MAX_TILES = 1 << 14
_MAX_TILE_SAMPLES = 1 << 27
"""OpenJPEG decodes a tile as a whole, with four bytes a sample."""
_MAX_LAYERS = 1 << 10
_MAX_PRECINCTS = 1 << 18
"""In a tile."""
_MAX_CODE_BLOCKS = 1 << 20
"""In a tile."""


def decode(file: IO[bytes], bounds: Bounds) -> Decoded:
    """Decode a JPEG 2000 picture; one component keeps its depth.

    Raises:
        FluxdropError: It is over the *bounds*. Besides, what Pillow raises.
    """
    _check(file, _codestream(file), bounds)
    file.seek(0)
    with Jpeg2KImagePlugin.Jpeg2KImageFile(file) as image:
        decoded = by_pillow(image, bounds)
        if image.mode != "I;16":
            return decoded
        # Pillow has scaled it to 16 bits.
        pixels = np.asarray(image)[..., np.newaxis]
        return decoded._replace(image=of_integers(pixels, bounds.warn, 65535))


def _codestream(file: IO[bytes]) -> int:
    """Return the offset of the codestream in *file*. Raises ValueError."""
    file.seek(0)
    if file.read(2) == struct.pack(">H", _START):
        return 0
    offset = 0
    for _ in range(_MAX_BOXES):
        file.seek(offset)
        head = file.read(16)
        if len(head) < 8:
            break
        length, kind = struct.unpack_from(">I4s", head)
        start = 8
        if length == 1 and len(head) == 16:
            start, length = 16, struct.unpack_from(">Q", head, 8)[0]
        if kind == b"jp2c":
            return offset + start
        if length < start:
            break
        offset += length
    raise ValueError("it has no codestream")


def _check(file: IO[bytes], offset: int, bounds: Bounds) -> None:
    """Raise FluxdropError if the codestream at *offset* is over the *bounds*, ValueError if it is damaged."""
    tile: tuple[int, int, int] | None = None
    for marker, data in _segments(file, offset):
        if marker == _SIZ:
            tile = _check_size(data, bounds)
        elif marker in (_COD, _COC):
            if tile is None:
                raise ValueError("its size does not come first")
            _check_coding(marker, data, tile, bounds)
    if tile is None:
        raise ValueError("it has no size")


def _segments(file: IO[bytes], offset: int) -> Iterator[tuple[int, bytes]]:
    """Yield the marker segments of the headers: the main one and those of all tile-parts."""
    file.seek(offset)
    if file.read(2) != struct.pack(">H", _START):
        raise ValueError("its codestream does not begin as one")
    offset += 2
    next_part = 0
    for _ in range(_MAX_MARKERS):
        file.seek(offset)
        head = file.read(4)
        if len(head) < 4:
            return
        marker, length = struct.unpack(">HH", head)
        if marker == _SOD:
            if next_part <= offset:
                return
            offset = next_part
            continue
        if marker == _EOC:
            return
        if marker < 0xFF00 or length < 2:
            raise ValueError("its headers are damaged")
        data = file.read(length - 2)
        if marker == _SOT:
            # A length of 0 means that the tile-part is the last one.
            part = struct.unpack_from(">HI", data.ljust(6, b"\0"))[1]
            next_part = offset + part if part else 0
        yield marker, data
        offset += 2 + length
    raise ValueError(f"it has more than {_MAX_MARKERS:,} markers")


def _check_size(data: bytes, bounds: Bounds) -> tuple[int, int, int]:
    """Return a tile's width and height, and the number of components."""
    if len(data) < 36:
        raise ValueError("its size is cut off")
    right, bottom, left, top, width, height, tile_left, tile_top, components = struct.unpack_from(
        ">8IH", data, 2
    )
    if not (left < right and top < bottom and width and height):
        raise ValueError("it has no pixels")
    bounds.check(right - left, bottom - top)
    if components > _MAX_COMPONENTS:
        raise bounds.refusal(f"has {components:,} components, over the limit of {_MAX_COMPONENTS}")
    tiles = -(-(right - tile_left) // width) * -(-(bottom - tile_top) // height)
    if tiles > _MAX_TILES:
        raise bounds.refusal(f"has {tiles:,} tiles, over the limit of {_MAX_TILES:,}")
    tile = min(width, right - left), min(height, bottom - top), components
    if tile[0] * tile[1] * components > _MAX_TILE_SAMPLES:
        raise bounds.refusal(f"has tiles of {tile[0]:,} x {tile[1]:,} pixels, which are too large")
    return tile


def _check_coding(marker: int, data: bytes, tile: tuple[int, int, int], bounds: Bounds) -> None:
    """Check how the components of a *tile* are divided: precincts, code-blocks and layers."""
    width, height, components = tile
    if marker == _COD:
        style, layers, rest = data[0], int.from_bytes(data[2:4], "big"), data[5:]
    else:
        style, layers, rest = data[1], 1, data[2:]
    levels, across, down = rest[0], rest[1] + 2, rest[2] + 2
    sizes = rest[5:] if style & 1 else b""
    if levels > 32 or across > 10 or down > 10:
        raise ValueError("its coding style is damaged")
    precincts = 0
    for level in range(levels + 1):
        size = sizes[level] if level < len(sizes) else 0xFF
        shift = levels - level
        precincts += _parts(width, shift + (size & 15)) * _parts(height, shift + (size >> 4))
        across, down = (
            (min(across, max(size & 15, 1)), min(down, max(size >> 4, 1)))
            if sizes
            else (across, down)
        )
    blocks = _parts(width, across) * _parts(height, down) * components
    if precincts * components > _MAX_PRECINCTS or blocks > _MAX_CODE_BLOCKS:
        raise bounds.refusal("is divided into so many small parts that it takes too much memory")
    if layers > _MAX_LAYERS:
        raise bounds.refusal(f"has {layers:,} layers, over the limit of {_MAX_LAYERS:,}")


def _parts(length: int, bits: int) -> int:
    return -(-length // (1 << bits)) + 1
