"""Pictures in files, and how they are opened or refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fluxdrop.errors import FluxdropError
from fluxdrop.intake.whole.png import SIGNATURE
from fluxdrop.preprocess.picture import open_picture

PIXELS = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
RGB = Image.fromarray(PIXELS)


def scene(width: int, height: int, seed: int = 20) -> Image.Image:
    """A picture of blurred colours, each side of which is another one."""
    cells = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)


def opened(path: Path, max_pixels: int = 10_000) -> tuple[Image.Image, str]:
    """The picture in *path* and its format, within small bounds."""
    return open_picture(path, max_file_bytes=100_000, max_pixels=max_pixels)


def saved(folder: Path, image: Image.Image, file_format: str = "PNG", **options: Any) -> Path:
    """*image* in a file of *folder*; the *options* are Pillow's for the format."""
    path = folder / "cat.png"
    image.save(path, format=file_format, **options)
    return path


def refusal(path: Path, **bounds: int) -> FluxdropError:
    """How *path* is refused; whatever the reason, it is told and there is something to do."""
    with pytest.raises(FluxdropError) as caught:
        opened(path, **bounds)
    assert ("picture", True) == (caught.value.kind, bool(caught.value.hint))
    assert path.name in caught.value.message
    return caught.value


def png(
    width: int, height: int, *chunks: tuple[bytes, bytes], colour: int = 2, depth: int = 8
) -> bytes:
    """A PNG with that header and these chunks."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return SIGNATURE + b"".join(
        chunk(kind, data) for kind, data in ((b"IHDR", head), *chunks, (b"IEND", b""))
    )


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """One chunk of a PNG, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
