"""Opening pictures that nobody vouches for."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fluxdrop.errors import FluxdropError
from support.irregular import each_irregular
from support.pictures import PIXELS, RGB, opened, png, refusal, saved


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("PNG", {"optimize": True})],
)
def test_lossless_formats(tmp_path: Path, file_format: str, options: dict[str, Any]) -> None:
    """A picture comes back pixel by pixel, with its format, whatever the file is called."""
    image, name = opened(saved(tmp_path, RGB, file_format, **options))

    assert (file_format, "RGB") == (name, image.mode)
    assert np.array_equal(PIXELS, np.asarray(image))


def test_jpeg(tmp_path: Path) -> None:
    """A JPEG is told as one."""
    image, name = opened(saved(tmp_path, Image.new("RGB", (16, 16), (200, 30, 30)), "JPEG"))

    assert ("JPEG", "RGB") == (name, image.mode)
    assert (np.abs(np.asarray(image).astype(int) - (200, 30, 30)) < 8).all()


def test_jpeg_of_several_pictures(tmp_path: Path) -> None:
    """A camera's JPEG that holds more pictures than one is a JPEG, and its first picture counts."""
    path = tmp_path / "cat.jpg"
    RGB.save(path, format="MPO", save_all=True, append_images=[Image.new("RGB", (2, 2))])

    image, name = opened(path)

    assert ("JPEG", RGB.size) == (name, image.size)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_animation(tmp_path: Path, file_format: str) -> None:
    """Of an animation the first picture counts."""
    second = Image.new("RGB", RGB.size)
    path = saved(tmp_path, RGB, file_format, save_all=True, append_images=[second], lossless=True)

    assert np.array_equal(PIXELS, np.asarray(opened(path)[0].convert("RGB")))


@pytest.mark.parametrize(
    ("image", "mode", "expected"),
    [
        (Image.fromarray(np.array([[0, 255, 256, 65535]], np.uint16)), "L", [0, 0, 1, 255]),
        (Image.fromarray(np.array([[0, 7, 255]], np.uint8)), "L", [0, 7, 255]),
        (Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1"), "L", [0, 255]),
        (Image.new("LA", (1, 1), (9, 128)), "LA", [[9, 128]]),
        (Image.new("RGBA", (1, 1), (9, 8, 7, 6)), "RGBA", [[9, 8, 7, 6]]),
        (Image.new("RGB", (1, 1), (9, 8, 7)).convert("P"), "RGB", None),
        (RGB.quantize(4), "RGB", None),
    ],
)
def test_modes(tmp_path: Path, image: Image.Image, mode: str, expected: list[Any] | None) -> None:
    """Every kind of PNG becomes 8 bits a channel, and 16 bits by their high byte."""
    opened_image, _ = opened(saved(tmp_path, image))

    values = np.asarray(image.convert("RGB")) if expected is None else np.array([expected])
    assert mode == opened_image.mode
    assert np.array_equal(values, np.asarray(opened_image))


@pytest.mark.parametrize(
    ("image", "transparency", "expected"),
    [
        (RGB.quantize(4), bytes([255, 0, 128, 255]), None),
        (Image.fromarray(np.array([[7, 9]], np.uint8)), 7, [[7, 7, 7, 0], [9, 9, 9, 255]]),
        (Image.new("RGB", (1, 1), (1, 2, 3)), (1, 2, 3), [[1, 2, 3, 0]]),
        (Image.new("1", (1, 1), 1), 1, [[255, 255, 255, 0]]),
    ],
)
def test_transparency_without_a_channel(
    tmp_path: Path, image: Image.Image, transparency: Any, expected: list[Any] | None
) -> None:
    """A colour, or an entry of a palette, that is named as transparent becomes so."""
    opened_image, _ = opened(saved(tmp_path, image, transparency=transparency))

    assert "RGBA" == opened_image.mode
    if expected is None:
        expected = np.take(np.frombuffer(transparency, np.uint8), np.asarray(image)).tolist()
        assert expected == np.asarray(opened_image)[..., 3].tolist()
    else:
        assert [expected] == np.asarray(opened_image).tolist()


def test_interlaced(tmp_path: Path) -> None:
    """An interlaced PNG is the same picture."""
    data = b""
    for x0, y0, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        part = PIXELS[y0::dy, x0::dx]
        data += b"".join(b"\0" + row.tobytes() for row in part if row.size)
    file = bytearray(png(6, 4, (b"IDAT", zlib.compress(data))))
    file[28] = 1
    file[29:33] = struct.pack(">I", zlib.crc32(file[12:29]))
    path = tmp_path / "cat.png"
    path.write_bytes(file)

    assert np.array_equal(PIXELS, np.asarray(opened(path)[0]))


def test_cmyk(tmp_path: Path) -> None:
    """A CMYK JPEG becomes RGB, without the profile that spoke of CMYK."""
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))

    opened_image, name = opened(saved(tmp_path, image, "JPEG", icc_profile=b"of cmyk"))

    assert ("JPEG", "RGB", None) == (name, opened_image.mode, opened_image.info.get("icc_profile"))
    red, green, blue = np.asarray(opened_image)[8, 8]
    assert (red > 230, green < 25, blue < 25) == (True, True, True)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda p: p),
        (2, lambda p: p[:, ::-1]),
        (3, lambda p: p[::-1, ::-1]),
        (4, lambda p: p[::-1]),
        (5, lambda p: p.transpose(1, 0, 2)),
        (6, lambda p: np.rot90(p, -1)),
        (7, lambda p: p.transpose(1, 0, 2)[::-1, ::-1]),
        (8, lambda p: np.rot90(p)),
        (99, lambda p: p),
    ],
)
@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_orientation(
    tmp_path: Path, orientation: int, turn: Callable[[Any], Any], file_format: str
) -> None:
    """A picture is upright, as its EXIF says that the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, RGB, file_format, exif=exif, lossless=True)

    assert np.array_equal(turn(PIXELS), np.asarray(opened(path)[0]))


def test_turned_sixteen_bits(tmp_path: Path) -> None:
    """A picture of 16 bits is turned upright as well."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.array([[256, 512]], np.uint16))

    assert [[1], [2]] == np.asarray(opened(saved(tmp_path, image, exif=exif))[0]).tolist()


@each_irregular
def test_no_file(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """What is not a regular file is refused at once, a symlink to a picture as well."""
    path = tmp_path / "cat.png"
    make(path)

    refusal(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a picture"),
        (b"GIF89a\x01\0\x01\0\0\0\0;", "is not a picture"),
        (b"<html>", "is not a picture"),
        (png(6, 4), "is damaged or cut off"),
        (png(6, 4, (b"IDAT", b"nothing")), "is damaged or cut off"),
        (png(6, 4, (b"IDAT", zlib.compress(b"\0"))), "is damaged or cut off"),
    ],
)
def test_no_picture(tmp_path: Path, data: bytes, words: str) -> None:
    """What is no picture is told apart from what is a damaged one."""
    path = tmp_path / "cat.png"
    path.write_bytes(data)

    assert words in refusal(path).message


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_cut_off(tmp_path: Path, file_format: str) -> None:
    """A picture that is cut off anywhere before its last bytes is refused, and never shown in part."""
    noise = np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    data = saved(tmp_path, Image.fromarray(noise), file_format).read_bytes()
    path = tmp_path / "cut.png"

    for length in range(0, len(data) - 20, 97):
        path.write_bytes(data[:length])
        refusal(path)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "MPO"])
def test_damaged_anyhow(tmp_path: Path, file_format: str) -> None:
    """However a file is damaged, it is opened within the bounds or refused; nothing else comes out."""
    chance = random.Random(2026)
    exif = Image.Exif()
    exif[0x0112] = 6
    more: dict[str, Any] = (
        {"save_all": True, "append_images": [RGB]} if file_format == "MPO" else {}
    )
    intact = saved(tmp_path, RGB.resize((40, 30)), file_format, exif=exif, **more).read_bytes()
    path = tmp_path / "damaged.png"
    outcomes = set()

    for _ in range(400):
        data = bytearray(intact)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(data))
            match chance.randrange(3):
                case 0:
                    data[place] = chance.randrange(256)
                case 1:
                    del data[place : place + chance.randint(1, 8)]
                case 2:
                    data[place:place] = chance.randbytes(chance.randint(1, 8))
        path.write_bytes(mended(data) if file_format == "PNG" else data)
        try:
            image, _ = opened(path)
        except FluxdropError as error:
            outcomes.add((error.kind, bool(error.hint)))
        else:
            outcomes.add(("opened", image.width * image.height <= 10_000))

    assert {("picture", True), ("opened", True)} == outcomes


def mended(data: bytearray) -> bytes:
    """*data* with the checksums of its chunks made right, so that damage gets behind them."""
    place = 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(data)
