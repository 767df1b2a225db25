"""Pictures of every format: whole, and cut off at every byte."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fluxdrop.intake.whole import SCANNERS, scanner_for
from fluxdrop.picture_formats import FORMATS, format_of
from fluxdrop.preprocess.jpeg import decode_without_end, outline_of

NOISE = np.random.default_rng(0).integers(0, 256, (19, 23, 3), np.uint8)
PICTURE = Image.fromarray(NOISE)


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    """The file that Pillow makes of *picture*."""
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def bitmap_array() -> bytes:
    """A BMP with the header of OS/2, which Pillow reads and does not write."""
    header = b"\x0c\0\0\0" + b"\x05\0\x04\0\x01\0\x18\0"
    return b"BM" + (26 + 64).to_bytes(4, "little") + bytes(4) + b"\x1a\0\0\0" + header + bytes(64)


FRAMES = {"save_all": True, "append_images": [PICTURE.rotate(90)]}
WHOLE = {
    "png": saved(PICTURE, "PNG"),
    "jpeg": saved(PICTURE, "JPEG"),
    "jpeg progressive": saved(PICTURE, "JPEG", progressive=True, quality=95),
    "jpeg restarts": saved(PICTURE, "JPEG", restart_marker_rows=1, comment=b"\xff\xd9"),
    "jpeg cmyk": saved(PICTURE.convert("CMYK"), "JPEG", progressive=True),
    "webp": saved(PICTURE, "WEBP"),
    "webp lossless": saved(PICTURE, "WEBP", lossless=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
    "webp animated": saved(PICTURE, "WEBP", **FRAMES),
    "tiff": saved(PICTURE, "TIFF"),
    "tiff lzw": saved(PICTURE, "TIFF", compression="tiff_lzw", strip_size=100),
    "tiff deflate": saved(PICTURE, "TIFF", compression="tiff_adobe_deflate"),
    "tiff big": saved(PICTURE, "TIFF", big_tiff=True),
    "tiff pages": saved(PICTURE, "TIFF", **FRAMES),
    "bmp": saved(PICTURE, "BMP"),
    "bmp 1": saved(PICTURE.convert("1"), "BMP"),
    "bmp os/2": bitmap_array(),
    "gif": saved(PICTURE, "GIF"),
    "avif": saved(PICTURE, "AVIF"),
    "avif animated": saved(PICTURE, "AVIF", **FRAMES),
    "jp2": saved(PICTURE, "JPEG2000"),
    "j2k": saved(PICTURE, "JPEG2000", no_jp2=True, tile_size=(16, 16)),
    "ppm": saved(PICTURE, "PPM"),
    "pgm 16": saved(Image.fromarray(NOISE[..., 0].astype(np.uint16) << 8), "PPM"),
    "pbm": saved(PICTURE.convert("1"), "PPM"),
    "pfm": saved(Image.fromarray(NOISE[..., 0].astype(np.float32)), "PPM"),
    "pgm text": b"P2 # made by hand\n3 2\n255\n0 10 20\n30 40 50\n",
    "pbm text": b"P1\n3 2\n010\n110\n",
}
"""Small files of each format, as Pillow writes them or by hand."""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Callable[[bytes], str | None]]:
    """Tells what a file with the given bytes is; None if it is of no format."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)

    def state_of(data: bytes) -> str | None:
        os.ftruncate(fd, 0)
        os.pwrite(fd, data, 0)
        scanner = scanner_for(fd)
        return scanner.scan(fd) if scanner else None

    yield state_of
    os.close(fd)


def test_every_format_has_a_scanner() -> None:
    """Whatever format a picture may have, its end is known."""
    assert {one.name for one in FORMATS} == SCANNERS.keys()
    assert {one.name for one in FORMATS if one.name != "HEIF"} == {
        found.name for data in WHOLE.values() if (found := format_of(data))
    }


@pytest.mark.parametrize("name", WHOLE)
def test_whole(state: Callable[[bytes], str | None], name: str) -> None:
    """A whole file is: complete if its format marks the end, otherwise with nothing missing."""
    marked = name.startswith(("png", "jpeg", "gif", "jp2", "j2k"))

    assert ("complete" if marked else "plausible") == state(WHOLE[name])


def shown(data: bytes) -> bytes | None:
    """The pixels of the first picture in *data*; None if it does not decode."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGBA").tobytes()
    except Exception:
        return None


@pytest.mark.parametrize("name", WHOLE)
def test_cut_anywhere(state: Callable[[bytes], str | None], name: str) -> None:
    """A file that is cut off at any byte is not whole, unless a decoder shows all of its picture.

    If the mark of its end alone is missing, decoding has to say whether all pixels are there.
    """
    data = WHOLE[name]
    pixels = shown(data)
    wrong = []
    for size in range(1, len(data)):
        found = state(data[:size])
        if found == "unended":
            try:
                found = None
                file = io.BytesIO(data[:size])
                picture = decode_without_end(file, outline_of(file))
                found = "complete" if picture.convert("RGBA").tobytes() != pixels else "incomplete"
            except OSError:
                found = "incomplete"
        if found not in ("incomplete", "damaged") and (
            # The last number may be a part of one.
            shown(data[:size]) != pixels and not (name == "pgm text" and size >= len(data) - 2)
        ):
            wrong.append((size, found))

    assert [] == wrong


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive", "jpeg restarts", "jpeg cmyk"])
@pytest.mark.parametrize("missing", [1, 2])
def test_jpeg_without_end(state: Callable[[bytes], str | None], name: str, missing: int) -> None:
    """A JPEG that lacks the mark of its end, or half of it, decodes to the same picture."""
    data = WHOLE[name][:-missing]

    assert "unended" == state(data)
    picture = decode_without_end(io.BytesIO(data), outline_of(io.BytesIO(data)))
    assert shown(WHOLE[name]) == picture.convert("RGBA").tobytes()


@pytest.mark.parametrize("name", WHOLE)
def test_growing(tmp_path: Path, name: str) -> None:
    """One scanner that looks at a growing file again and again finds the same as a new one, at each size."""
    path = tmp_path / "file"
    data = WHOLE[name]
    with path.open("wb", buffering=0) as writer, path.open("rb") as reader:
        writer.write(data[:64])
        scanner = scanner_for(reader.fileno())
        assert scanner is not None
        wrong = []
        for size in range(64, len(data) + 1, 7):
            writer.write(data[max(64, size - 7) : size])
            fresh = scanner_for(reader.fileno())
            assert fresh is not None
            if scanner.scan(reader.fileno()) != fresh.scan(reader.fileno()):
                wrong.append(size)

    assert [] == wrong


@pytest.mark.parametrize("name", WHOLE)
def test_mutated(state: Callable[[bytes], str | None], name: str) -> None:
    """Whatever a file holds, the check ends with an answer."""
    chance = random.Random(name)
    states = set()
    for _ in range(150):
        data = bytearray(WHOLE[name])
        for _ in range(chance.randint(1, 8)):
            # Most of a format's structure is at the beginning.
            data[min(int(chance.expovariate(1 / 60)), len(data) - 1)] = chance.choice(
                [0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)]
            )
        states.add(state(bytes(data[: chance.randint(1, 2 * len(data))])))

    assert states <= {"complete", "plausible", "unended", "incomplete", "damaged", None}


@pytest.mark.parametrize("name", ["webp", "tiff", "bmp", "avif", "ppm"])
def test_reserved(state: Callable[[bytes], str | None], name: str) -> None:
    """A file whose size was set before its contents were written never counts as complete by its size alone."""
    data = WHOLE[name]

    assert "complete" not in {
        state(data[:size] + bytes(len(data) - size)) for size in range(64, len(data))
    }


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("jpeg", 300, "it ends after 300 bytes, before the mark of its end"),
        ("webp", 100, f"it has 100 bytes of the {len(WHOLE['webp'])} that its head gives"),
        ("tiff", 1000, "one of its strips or tiles is cut off at byte 1000"),
        ("bmp", 50, "its header is cut off at byte 50"),
        ("gif", 100, "it ends after 100 bytes, within a block"),
        ("avif", 100, "its meta box is cut off at byte 100"),
        ("jp2", 100, "its jp2c box is cut off at byte 100"),
        ("ppm", 100, f"it has 100 bytes, and its pixels take {len(WHOLE['ppm'])}"),
        ("webp", 3, "it ends after 3 bytes, within its first ones"),
    ],
)
def test_reasons(tmp_path: Path, name: str, size: int, reason: str) -> None:
    """The reason says what is missing, for people."""
    path = tmp_path / "file"
    path.write_bytes(WHOLE[name][:size])
    with path.open("rb") as file:
        scanner = scanner_for(file.fileno())
        assert scanner is not None
        scanner.scan(file.fileno())

    assert reason == scanner.reason
