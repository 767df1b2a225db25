"""Pictures of every kind that a format has, with the pixels that they have to come to."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from support.pictures import png

Array = NDArray[Any]


def saved_bytes(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """*image* as a file; the *options* are Pillow's for the format."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def deep_png(pixels: Array, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with 16 bits of *pixels*, (height, width, channels), with *chunks* before the pixels."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    data = (b"IDAT", zlib.compress(rows))
    return png(width, height, *chunks, data, colour=colour, depth=16)


def tiff(
    pixels: Array,
    tags: Mapping[int, Sequence[int]] = {},
    *,
    order: Literal["<", ">"] = "<",
    deflated: bool = True,
    tile: tuple[int, int] | None = None,
    rows: Iterable[bytes] | None = None,
) -> bytes:
    """A TIFF of *pixels*, (height, width, channels), in one strip, or in tiles of a width and height.

    *rows* are the bytes of its rows where a predictor makes them others; *tags* add to or replace those that it needs.
    """
    height, width, channels = pixels.shape
    stored = pixels.astype(pixels.dtype.newbyteorder(order))
    if tile:
        down, across = -(-height // tile[1]), -(-width // tile[0])
        whole = np.zeros((down * tile[1], across * tile[0], channels), stored.dtype)
        whole[:height, :width] = stored
        parts = [
            whole[y : y + tile[1], x : x + tile[0]].tobytes()
            for y in range(0, down * tile[1], tile[1])
            for x in range(0, across * tile[0], tile[0])
        ]
    else:
        parts = [b"".join(rows) if rows is not None else stored.tobytes()]
    parts = [zlib.compress(part) if deflated else part for part in parts]
    offsets = [8 + sum(map(len, parts[:number])) for number in range(len(parts))]
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    found: dict[int, Sequence[int]] = {
        256: [width],
        257: [height],
        258: [pixels.dtype.itemsize * 8] * channels,
        259: [8 if deflated else 1],
        262: [2 if channels > 2 else 1],
        277: [channels],
        339: [kind] * channels,
    }
    found |= (
        {322: [tile[0]], 323: [tile[1]], 324: offsets, 325: [len(part) for part in parts]}
        if tile
        else {273: offsets, 278: [height], 279: [len(parts[0])]}
    )
    if channels in (2, 4):
        found[338] = [2]
    found |= tags
    head = (b"II" if order == "<" else b"MM") + struct.pack(
        f"{order}HI", 42, 8 + sum(map(len, parts))
    )
    return b"".join([head, *parts, _directory(found, order, 8 + sum(map(len, parts)))])


def _directory(tags: Mapping[int, Sequence[int]], order: str, start: int) -> bytes:
    entries, data = [], b""
    after = start + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        raw = struct.pack(f"{order}{len(values)}I", *values)
        if len(raw) > 4:
            place = struct.pack(f"{order}I", after + len(data))
            data += raw
        else:
            place = raw.ljust(4, b"\0")
        entries.append(struct.pack(f"{order}HHI", tag, 4, len(values)) + place)
    return struct.pack(f"{order}H", len(tags)) + b"".join(entries) + bytes(4) + data


def float_predicted(pixels: Array) -> list[bytes]:
    """The rows of *pixels* as TIFF's predictor of floats leaves them."""
    _, width, channels = pixels.shape
    rows = []
    for row in pixels.astype(pixels.dtype.newbyteorder(">")):
        planes = np.frombuffer(row.tobytes(), np.uint8).reshape(width * channels, -1).T.reshape(-1)
        before = np.concatenate([np.zeros(channels, np.uint8), planes[:-channels]])
        rows.append((planes - before).astype(np.uint8).tobytes())
    return rows


def pillow_tiff(image: Image.Image, compression: str | None, **tags: int) -> bytes:
    """*image* as Pillow writes it, with further *tags* by their names there."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        info[getattr(TiffImagePlugin, name)] = value
    return saved_bytes(image, "TIFF", compression=compression, tiffinfo=info)


def lossless(image: Image.Image) -> dict[str, bytes]:
    """The RGB picture *image* in each format and kind that keeps its pixels, by a file's name."""
    ppm = saved_bytes(image, "PPM")
    text = " ".join(map(str, np.asarray(image).ravel().tolist())).encode()
    head = b"P3 %d %d # a comment\n255\n" % image.size
    pixels = np.asarray(image)
    pam = (
        b"P7\n# a comment\nWIDTH %d\nHEIGHT %d\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n"
        % image.size
    )
    return {
        "webp.webp": saved_bytes(image, "WEBP", lossless=True),
        "bmp.bmp": saved_bytes(image, "BMP"),
        "jpeg2000.jp2": saved_bytes(image, "JPEG2000", irreversible=False),
        "codestream.j2k": saved_bytes(image, "JPEG2000", no_jp2=True, tile_size=(16, 16)),
        "binary.ppm": ppm,
        "text.ppm": head + text,
        "pam.pam": pam + pixels.tobytes(),
        "plain.tif": saved_bytes(image, "TIFF"),
        "lzw.tif": pillow_tiff(image, "tiff_lzw", PREDICTOR=2),
        "deflate.tiff": pillow_tiff(image, "tiff_adobe_deflate"),
        "packbits.tif": pillow_tiff(image, "packbits"),
        "zstd.tif": pillow_tiff(image, "zstd"),
        "bigtiff.tif": saved_bytes(image, "TIFF", big_tiff=True),
        "big-endian.tif": tiff(pixels, order=">", deflated=False),
        "tiles.tif": tiff(pixels, tile=(16, 16)),
        "separate.tif": tiff(
            np.ascontiguousarray(pixels.transpose(2, 0, 1)).reshape(-1, pixels.shape[1], 1),
            _planes(image),
            deflated=False,
        ),
    }


def _planes(image: Image.Image) -> dict[int, list[int]]:
    """The tags that make three planes of one strip, which has them one below the other."""
    width, height = image.size
    size = width * height
    return {
        257: [height],
        258: [8] * 3,
        262: [2],
        273: [8, 8 + size, 8 + 2 * size],
        277: [3],
        278: [height],
        279: [size] * 3,
        284: [2],
        339: [1] * 3,
    }
