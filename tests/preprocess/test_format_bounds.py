"""What pictures of the other formats may cost: each claim is checked before memory or time is taken for it."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.picture_kinds import deep_png, saved_bytes, tiff
from support.pictures import opened, refusal

SMALL = np.zeros((16, 24, 3), np.uint8)
HUGE = "60000 x 50000 pixels, over the limit of 10,000"


def patched(data: bytes, place: int, *values: bytes) -> bytes:
    """*data* with other bytes at a *place*."""
    new = b"".join(values)
    return data[:place] + new + data[place + len(new) :]


def headers() -> dict[str, bytes]:
    """Small files that announce a huge picture."""
    image = Image.fromarray(SMALL)
    stream = saved_bytes(image, "JPEG2000", no_jp2=True)
    avif = saved_bytes(image, "AVIF")
    gif = saved_bytes(image.convert("P"), "GIF")
    descriptor = gif.index(b"\x2c", 13)
    return {
        "bmp": patched(saved_bytes(image, "BMP"), 18, struct.pack("<ii", 60000, 50000)),
        "gif screen": patched(gif, 6, struct.pack("<HH", 60000, 50000)),
        "gif picture": patched(gif, descriptor + 5, struct.pack("<HH", 60000, 50000)),
        "avif": patched(avif, avif.index(b"ispe") + 8, struct.pack(">II", 60000, 50000)),
        "j2k": patched(stream, stream.index(b"\xff\x51") + 6, struct.pack(">II", 60000, 50000)),
        "pnm": b"P6 60000 50000 255\n" + bytes(100),
        "plain pnm": b"P3 60000 50000 255\n" + b"0 " * 100,
        "pam": b"P7\nWIDTH 60000\nHEIGHT 50000\nDEPTH 1\nMAXVAL 255\nENDHDR\n" + bytes(100),
        "tiff": tiff(SMALL, {256: [60000], 257: [50000]}),
    }


@pytest.mark.parametrize("name", headers())
def test_huge_pictures(tmp_path: Path, name: str) -> None:
    """A picture that announces more pixels than the limit is refused by its header."""
    path = tmp_path / "cat"
    path.write_bytes(headers()[name])

    message = refusal(path).message

    assert "pixels, over the limit of 10,000" in message or name == "avif"


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({277: [10_000]}, "has 10,000 channels"),
        ({259: [34712]}, "a compression that is not read (number 34712)"),
        ({259: [5], 262: [6]}, "YCbCr colours that are not compressed as JPEG"),
        ({273: [1 << 31]}, "its pixels lie beyond its end"),
        ({278: [1], 273: list(range(8, 24)), 279: [30] * 16}, "claim more bytes than the file has"),
        ({273: [8]} | {279: []}, "is damaged"),
        ({257: [0]}, "it has no pixels"),
        ({322: [1 << 30], 323: [16], 324: [8], 325: [20]}, "is more than it needs"),
        ({258: [64] * 3, 339: [5] * 3}, "no numbers of a picture"),
        ({258: [8, 16, 8]}, "cat"),
    ],
)
def test_claims_of_tiff(tmp_path: Path, tags: dict[int, list[int]], words: str) -> None:
    """A TIFF that claims what cannot be is refused, with the reason."""
    path = tmp_path / "cat"
    path.write_bytes(tiff(SMALL, tags))

    assert words in refusal(path).message


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 tags"), (5000, "5,000 tags"), (4000, "its tags are cut off")]
)
def test_tags_of_tiff(tmp_path: Path, count: int, words: str) -> None:
    """A directory with no end, or with thousands of tags, is refused."""
    path = tmp_path / "cat"
    path.write_bytes(b"II*\0\x10\0\0\0" + bytes(8) + struct.pack("<H", count) + bytes(30))

    assert words in refusal(path).message


def test_loop_of_directories(tmp_path: Path) -> None:
    """A TIFF whose next page is its first one again is one picture."""
    data = tiff(SMALL)
    place = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, place)[0]
    path = tmp_path / "cat"
    path.write_bytes(patched(data, place + 2 + 12 * count, struct.pack("<I", place)))

    assert (24, 16) == opened(path)[0].size


def stream(**fields: int) -> bytes:
    """A JPEG 2000 codestream with other numbers in its header."""
    data = saved_bytes(Image.fromarray(SMALL), "JPEG2000", no_jp2=True)
    size, coding = data.index(b"\xff\x51"), data.index(b"\xff\x52")
    places = {
        "tile": (size + 22, ">I"),
        "components": (size + 38, ">H"),
        "layers": (coding + 6, ">H"),
        "levels": (coding + 9, ">B"),
        "block": (coding + 10, ">B"),
    }
    for name, value in fields.items():
        place, form = places[name]
        data = patched(data, place, struct.pack(form, value))
    return data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (stream(components=16384), "has 16,384 components"),
        (stream(layers=65535), "has 65,535 layers"),
        (stream(levels=99), "its coding style is damaged"),
        (stream(tile=0), "it has no pixels"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x08free" * 2000, "it has no codestream"),
    ],
)
def test_claims_of_jpeg_2000(tmp_path: Path, data: bytes, words: str) -> None:
    """A JPEG 2000 for which OpenJPEG would take memory without end is refused by its header."""
    path = tmp_path / "cat"
    path.write_bytes(data)

    assert words in refusal(path).message


def test_tiles_of_jpeg_2000(tmp_path: Path) -> None:
    """A JPEG 2000 of more tiles than any camera makes is refused."""
    data = saved_bytes(Image.new("L", (200, 200)), "JPEG2000", no_jp2=True)
    place = data.index(b"\xff\x51")
    path = tmp_path / "cat"
    path.write_bytes(patched(data, place + 22, struct.pack(">II", 1, 1)))

    assert "has 40,000 tiles" in refusal(path, max_pixels=10**6).message


def test_deep_pixels_count_more(tmp_path: Path) -> None:
    """A picture of 8 bytes a pixel may have fewer pixels than one of 3."""
    path = tmp_path / "cat"
    path.write_bytes(deep_png(np.zeros((30, 30, 4), np.uint16)))

    assert (30, 30) == opened(path, max_pixels=1200)[0].size
    assert "pixels of 8 bytes" in refusal(path, max_pixels=1000).message


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 1e9])
def test_floats_of_no_picture(tmp_path: Path, value: float) -> None:
    """Floats that are no brightness are refused, with what to do."""
    values = np.full((16, 24, 1), 0.5, np.float32)
    values[3, 5] = value
    path = tmp_path / "cat"
    path.write_bytes(tiff(values))

    assert "not finite" in refusal(path).message or "no range" in refusal(path).message


def test_negative_integers(tmp_path: Path) -> None:
    """Negative numbers are refused: no picture has them, and what they mean is not known."""
    path = tmp_path / "cat"
    path.write_bytes(tiff(np.full((16, 24, 1), -7, np.int16)))

    assert "negative values" in refusal(path).message


def test_heif_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pillow-heif, a HEIF is refused in one sentence that says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    path = tmp_path / "cat"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")

    assert "pip install 'fluxdrop[heif]'" in refusal(path).hint


def test_runs_of_bmp(tmp_path: Path) -> None:
    """A compressed BMP of tens of megapixels is refused, as its runs would take minutes."""
    data = patched(
        saved_bytes(Image.new("P", (16, 16)), "BMP"),
        18,
        struct.pack("<ii", 5000, 5000),
        struct.pack("<HHI", 1, 8, 1),
    )
    path = tmp_path / "cat"
    path.write_bytes(data)

    assert "is a compressed BMP" in refusal(path, max_pixels=10**8).message


@pytest.mark.parametrize(
    "data",
    [
        b"P6 4 4",
        b"P6 4 4 0\n" + bytes(48),
        b"P6 4 4 70000\n" + bytes(96),
        b"P6 -4 4 255\n" + bytes(48),
        b"P5 4 4 100\n" + b"\xff" * 16,
        b"P2 4 4 255\n" + b"1 " * 15,
        b"P2 4 4 255\n" + b"x " * 16,
        b"P1 4 4\n" + b"2 " * 16,
        b"PF 4 4 zero\n" + bytes(192),
        b"P7\nWIDTH 4\nENDHDR\n" + bytes(16),
        b"P7\nWIDTH 4\nHEIGHT 4\nDEPTH 9\nMAXVAL 255\nENDHDR\n" + bytes(200),
    ],
)
def test_damaged_pnm(tmp_path: Path, data: bytes) -> None:
    """A PNM that lacks something, or has other numbers than it announces, is refused."""
    path = tmp_path / "cat"
    path.write_bytes(data)

    assert "is damaged or cut off" in refusal(path).message


def test_first_frame_of_many(tmp_path: Path) -> None:
    """Of an animation no further frame is decoded: one that is damaged does no harm."""
    file = io.BytesIO()
    frames = [Image.new("RGB", (16, 16), (number * 20, 7, 9)) for number in range(9)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    path = tmp_path / "cat"
    path.write_bytes(file.getvalue()[:-20])

    assert (16, 16) == opened(path)[0].size
