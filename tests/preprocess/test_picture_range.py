"""What is taken for white in pictures of 16 bits and of floats, and which picture of a file is taken."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fluxdrop.errors import FluxdropError
from fluxdrop.preprocess.deep import Deep
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.reduced import Reduced
from support.picture_kinds import deep_png, saved_bytes, tiff

RNG = np.random.default_rng(19)
UNIT = RNG.random((24, 40, 1)).astype(np.float32)
RGB = Image.merge("RGB", [Image.radial_gradient("L").resize((40, 24))] * 3)


def opened(path: Path, data: bytes) -> tuple[Image.Image | Deep, list[str]]:
    """The picture *data* as it is decoded, and the warnings."""
    path.write_bytes(data)
    warnings: list[str] = []
    image, _ = open_picture(path, max_file_bytes=10**6, max_pixels=10**5, deep=True, notes=warnings)
    assert not isinstance(image, Reduced)
    return image, warnings


def shares(image: Image.Image | Deep) -> Any:
    """The first channel of a deep picture, between 0 and 1."""
    assert isinstance(image, Deep)
    return image.band(0) / 255


def with_first(value: float) -> Any:
    """Floats between 0 and 1, but for the first."""
    values = UNIT.copy()
    values[0, 0] = value
    return values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            with_first(float(np.nextafter(np.float32(1), np.float32(2)))),
            "1 of its 960 values are over 1, up to 1: they were taken for 1.",
        ),
        (
            with_first(1.0068),
            "1 of its 960 values are over 1, up to 1.0068: they were taken for 1.",
        ),
        (
            with_first(-0.05),
            "1 of its 960 values are negative, down to -0.05: they were taken for 0.",
        ),
    ],
)
def test_overshoot_of_floats(tmp_path: Path, values: Any, words: str) -> None:
    """Floats that a filter made a little too large or negative are cut off, and the others stay as they are."""
    found, warnings = opened(tmp_path / "a.tif", tiff(values))

    assert [words] == warnings
    assert np.allclose(np.clip(values[..., 0], 0, 1), shares(found), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("largest", "white"), [(1.2, 1), (255.0, 255), (265.0, 255), (4095.0, 4095), (60000.0, 65535)]
)
def test_white_of_floats(tmp_path: Path, largest: float, white: int) -> None:
    """The white of floats is the range that they reach, also where some are a little over it."""
    values = UNIT / UNIT.max() * np.float32(largest)

    found, warnings = opened(tmp_path / "a.tif", tiff(values))

    assert len(warnings) == (white > 1) + (largest > white)
    assert np.allclose(np.clip(values[..., 0] / white, 0, 1), shares(found), rtol=0, atol=1e-6)


def test_alpha_of_floats(tmp_path: Path) -> None:
    """Colours up to 255 with an alpha of 0 to 1 are not taken for transparent."""
    alpha = np.full((24, 40, 3), 0.5, np.float32)
    alpha[..., :2] = UNIT * 255
    alpha[0, 0] = (255, 255, 1)
    pixels = np.concatenate([UNIT * 255, alpha], axis=2)
    pixels[0, 0, :3] = 255

    found, warnings = opened(tmp_path / "a.tif", tiff(pixels))

    assert ["Its values reach 255: 255 was taken for white."] == warnings
    assert isinstance(found, Deep)
    assert (255, 127.5) == (found.band(3)[0, 0], found.band(3)[5, 5])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (with_first(float("nan")), "1 of its 960 values are not finite"),
        (with_first(-0.5), "its values lie between -0.5 and"),
        (with_first(1e9), "which is no range of a picture"),
        (UNIT + np.float32(0.9), "which is no range of a picture"),
    ],
)
def test_floats_that_are_no_picture(tmp_path: Path, values: Any, words: str) -> None:
    """Floats that are no brightness are refused with what they are and what to save, not as damaged."""
    with pytest.raises(FluxdropError) as caught:
        opened(tmp_path / "a.tif", tiff(values))

    assert caught.value.message.startswith("a.tif cannot be read as a picture: ")
    assert words in caught.value.message
    assert "damaged" not in caught.value.message
    assert "Save it with values from 0 to 1" in str(caught.value.hint)


@pytest.mark.parametrize("make", [deep_png, tiff])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("largest", "white", "words"),
    [
        (4000, 4095, "none is over 4000: 4095 was taken for white."),
        (4100, 65535, "Its values reach 4100 of 65535, which was taken for white: it is dark."),
        (16383, 65535, "Its values reach 16383 of 65535, which was taken for white: it is dark."),
        (40000, 65535, None),
    ],
)
def test_dark_pictures_of_sixteen_bits(
    tmp_path: Path,
    make: Callable[[Any], bytes],
    channels: int,
    largest: int,
    white: int,
    words: str | None,
) -> None:
    """Grey and coloured pictures of 16 bits are read alike, and one that uses less than half of them is told."""
    values = np.linspace(0, largest, 24 * 40 * channels).astype(np.uint16).reshape(24, 40, channels)

    found, warnings = opened(tmp_path / "a", make(values))

    assert np.allclose(values[..., 0] / white, shares(found), rtol=0, atol=1e-6)
    assert len(warnings) == (words is not None)
    assert words is None or warnings[0].endswith(words)


@pytest.mark.parametrize("largest", [4000, 4100])
def test_the_file_says_what_is_white(tmp_path: Path, largest: int) -> None:
    """A TIFF whose MaxSampleValue is 65535 is read with it, however dark, so that a series keeps one scale."""
    values = np.linspace(0, largest, 24 * 40).astype(np.uint16).reshape(24, 40, 1)

    found, warnings = opened(tmp_path / "a.tif", tiff(values, {281: [65535]}))

    assert [] == warnings
    assert np.allclose(values[..., 0] / 65535, shares(found), rtol=0, atol=1e-6)


def joined(thumbnail: bytes, page: bytes) -> bytes:
    """A TIFF of two, both without compression and of one page; the second is stored as it would be alone."""
    start = len(thumbnail)
    place = struct.unpack_from("<I", thumbnail, 4)[0]
    count = struct.unpack_from("<H", thumbnail, place)[0]
    link = place + 2 + 12 * count
    moved = bytearray(page)
    directory = struct.unpack_from("<I", page, 4)[0]
    for number in range(struct.unpack_from("<H", page, directory)[0]):
        entry = directory + 2 + 12 * number
        tag, _, values, value = struct.unpack_from("<HHII", page, entry)
        if tag == 273 or values > 1:
            struct.pack_into("<I", moved, entry + 8, value + start)
    whole = bytearray(thumbnail) + moved
    struct.pack_into("<I", whole, link, start + directory)
    return bytes(whole)


def test_a_thumbnail_before_the_picture(tmp_path: Path) -> None:
    """Of a TIFF whose first page is a thumbnail the page after it is taken, which a warning says."""
    small = tiff(np.zeros((3, 5, 1), np.uint8), {254: [1]}, deflated=False)
    pixels = RNG.integers(0, 256, (24, 40, 1), np.uint8)

    found, warnings = opened(tmp_path / "a.tif", joined(small, tiff(pixels, deflated=False)))

    assert np.array_equal(pixels[..., 0], np.asarray(found))
    assert [
        "It has several pages, of which the first is a thumbnail: page 2 was taken."
    ] == warnings


def test_only_a_thumbnail(tmp_path: Path) -> None:
    """A TIFF that has nothing but a thumbnail is taken as it is, which a warning says."""
    pixels = RNG.integers(0, 256, (24, 40, 1), np.uint8)

    found, warnings = opened(tmp_path / "a.tif", tiff(pixels, {254: [1]}))

    assert np.array_equal(pixels[..., 0], np.asarray(found))
    assert ["It says that it is a thumbnail; it has no other page."] == warnings


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("AVIF", {"quality": 100, "subsampling": "4:4:4"})],
)
def test_animations(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    """Of an animation the first picture is taken with a warning; a single picture has none."""
    black = Image.new("RGB", RGB.size)
    moving = saved_bytes(RGB, kind, save_all=True, append_images=[black], **options)

    found, warnings = opened(tmp_path / "a", moving)

    assert np.abs(np.asarray(RGB).astype(int) - np.asarray(found)).max() < 8
    assert ["It has several pictures (an animation): the first one was taken."] == warnings
    assert [] == opened(tmp_path / "b", saved_bytes(RGB, kind, **options))[1]


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_pnm_of_several_pictures(tmp_path: Path, mode: str) -> None:
    """Of a PNM file with two pictures the first is taken with a warning; a single picture has none."""
    image = RGB.convert(mode)
    data = saved_bytes(image, "PPM")

    found, warnings = opened(tmp_path / "a", data + data)

    assert np.array_equal(np.asarray(image.convert("L")), np.asarray(found.convert("L")))  # type: ignore[union-attr]
    assert ["It has several pictures: the first one was taken."] == warnings
    assert [] == opened(tmp_path / "b", data)[1]


def test_heif_of_several_pictures(tmp_path: Path) -> None:
    """Of a HEIF with two pictures the main one is taken, which a warning says."""
    heif = pytest.importorskip("pillow_heif")
    file = heif.from_pillow(RGB)
    file.add_from_pillow(Image.new("RGB", (16, 16)))
    file.save(tmp_path / "a.heic", quality=95)

    found, warnings = opened(tmp_path / "b", (tmp_path / "a.heic").read_bytes())

    assert (40, 24) == (found.width, found.height)
    assert ["It has 2 pictures: the main one was taken."] == warnings
