"""Pictures of every format: that they come to the pixels that they have, and with their depth."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fluxdrop.picture_formats import format_of
from fluxdrop.preprocess.deep import Deep
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.reduced import Reduced
from fluxdrop.preprocess.spec import InputSpec
from fluxdrop.preprocess.tensor import fit, shown, to_tensor
from support.picture_kinds import (
    deep_png,
    float_predicted,
    lossless,
    pillow_tiff,
    saved_bytes,
    tiff,
)

GRADIENT = Image.radial_gradient("L").resize((40, 24))
RGB = Image.merge("RGB", [GRADIENT, GRADIENT.transpose(Image.Transpose.ROTATE_180), GRADIENT])
RNG = np.random.default_rng(18)
DEEP = RNG.integers(0, 1 << 16, (24, 40, 4), np.uint16)
FLOATS = RNG.random((24, 40, 3), np.float32)
SPEC = InputSpec(size=(40, 24))


def opened(path: Path, data: bytes) -> tuple[Image.Image | Deep, str, list[str]]:
    """The picture *data* as it is decoded, its format and the warnings."""
    path.write_bytes(data)
    warnings: list[str] = []
    image, name = open_picture(
        path, max_file_bytes=10**6, max_pixels=10**5, deep=True, notes=warnings
    )
    assert not isinstance(image, Reduced)
    return image, name, warnings


def tensor(path: Path, data: bytes, spec: InputSpec = SPEC) -> Any:
    """The tensor of the picture *data*."""
    return to_tensor(opened(path, data)[0], spec)


@pytest.mark.parametrize("name", lossless(RGB))
@pytest.mark.parametrize("size", [(40, 24), (20, 30)])
def test_lossless_formats(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    """A format without losses comes to the tensor that a PNG of the same pixels comes to, to the last bit."""
    spec = InputSpec(size=size)
    data = lossless(RGB)[name]
    expected = tensor(tmp_path / "a.png", saved_bytes(RGB, "PNG"), spec)

    found = format_of(data[:64])

    assert found is not None
    assert found.name == opened(tmp_path / name, data)[1]
    assert np.array_equal(expected, tensor(tmp_path / name, data, spec))


@pytest.mark.parametrize("mode", ["1", "L", "P"])
@pytest.mark.parametrize("kind", ["TIFF", "BMP", "GIF", "PPM"])
def test_few_bits(tmp_path: Path, mode: str, kind: str) -> None:
    """Black and white, grey and palettes come to the colours that they stand for."""
    if (mode, kind) == ("P", "PPM"):
        pytest.skip("PNM has no palettes")
    image = (RGB.quantize(16) if mode == "P" else RGB).convert(mode)

    found = tensor(tmp_path / "a", saved_bytes(image, kind))

    assert np.array_equal(to_tensor(image.convert("RGB"), SPEC), found)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax(tmp_path: Path, compression: str) -> None:
    """A scan compressed as a fax comes to its pixels."""
    image = GRADIENT.convert("1")

    found = tensor(tmp_path / "a.tif", pillow_tiff(image, compression))

    assert np.array_equal(to_tensor(image.convert("RGB"), SPEC), found)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {"quality": 95}), ("AVIF", {"quality": 95}), ("TIFF", {"compression": "jpeg"})],
)
def test_lossy_formats(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    """A format with losses comes to nearly the same pixels."""
    found, name, _ = opened(tmp_path / "a", saved_bytes(RGB, kind, **options))

    assert (kind, "RGB") == (name, found.mode)
    difference = np.asarray(found).astype(int) - np.asarray(RGB)
    assert 8 > np.abs(difference).mean()


def test_heif(tmp_path: Path) -> None:
    """A HEIF comes to nearly the same pixels."""
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(RGB).save(tmp_path / "a.heic", quality=95)

    found, name, _ = opened(tmp_path / "a.heic", (tmp_path / "a.heic").read_bytes())

    assert ("HEIF", "RGB") == (name, found.mode)
    assert 8 > np.abs(np.asarray(found).astype(int) - np.asarray(RGB)).mean()


def test_cmyk_tiff(tmp_path: Path) -> None:
    """Inks without a profile come to what Pillow makes of them."""
    image = RGB.convert("CMYK")

    found = tensor(tmp_path / "a.tif", saved_bytes(image, "TIFF"))

    assert np.array_equal(to_tensor(image.convert("RGB"), SPEC), found)


def deep_files() -> dict[str, tuple[bytes, Any]]:
    """Files of more than 8 bits, and their values between 0 and 1."""
    unit = DEEP / 65535
    floats = FLOATS.astype(np.float64)
    pgm = b"P5 40 24 4095\n" + (DEEP[..., 0] >> 4).astype(">u2").tobytes()
    pfm = b"PF\n40 24\n-1.0\n" + FLOATS[::-1].astype("<f4").tobytes()
    differences = np.diff(DEEP[..., :3], axis=1, prepend=np.uint16(0)).astype("<u2")
    half = FLOATS.astype(np.float16)
    return {
        "grey.png": (deep_png(DEEP[..., :1]), unit[..., :1]),
        "rgb.png": (deep_png(DEEP[..., :3]), unit[..., :3]),
        "grey.tif": (tiff(DEEP[..., :1]), unit[..., :1]),
        "rgb.tif": (tiff(DEEP[..., :3]), unit[..., :3]),
        "motorola.tif": (tiff(DEEP[..., :3], order=">", tile=(16, 16)), unit[..., :3]),
        "predicted.tif": (
            tiff(DEEP[..., :3], {317: [2]}, rows=[row.tobytes() for row in differences]),
            unit[..., :3],
        ),
        "white is zero.tif": (tiff(65535 - DEEP[..., :1], {262: [0]}), unit[..., :1]),
        "12 bits of 16.tif": (tiff(DEEP[..., :1] >> 4, {281: [4095]}), (DEEP[..., :1] >> 4) / 4095),
        "float.tif": (tiff(FLOATS), floats),
        "float predicted.tif": (tiff(FLOATS, {317: [3]}, rows=float_predicted(FLOATS)), floats),
        "half.tif": (tiff(half), half.astype(np.float64)),
        "double.tif": (tiff(floats[..., :1]), floats[..., :1]),
        "12 bits.pgm": (pgm, (DEEP[..., :1] >> 4) / 4095),
        "float.pfm": (pfm, floats),
    }


@pytest.mark.parametrize("name", deep_files())
def test_depth(tmp_path: Path, name: str) -> None:
    """More than 8 bits are kept to the tensor."""
    data, expected = deep_files()[name]

    found, _, warnings = opened(tmp_path / name, data)

    expected = np.broadcast_to(expected, (24, 40, 3)).transpose(2, 0, 1)[np.newaxis]
    assert isinstance(found, Deep)
    assert [] == warnings
    assert np.allclose(expected, to_tensor(found, SPEC), rtol=0, atol=1e-6)


def test_depth_of_jpeg_2000(tmp_path: Path) -> None:
    """A grey JPEG 2000 of 16 bits keeps them."""
    grey = DEEP[..., 0]
    data = saved_bytes(Image.fromarray(grey), "JPEG2000", irreversible=False)

    found, _, _ = opened(tmp_path / "a.jp2", data)

    assert isinstance(found, Deep)
    assert np.array_equal(grey, found.pixels[..., 0])


@pytest.mark.parametrize("make", [deep_png, tiff])
@pytest.mark.parametrize("channels", [2, 4])
def test_deep_transparency(tmp_path: Path, make: Callable[[Any], bytes], channels: int) -> None:
    """What is transparent shows the background, with all bits."""
    pixels = DEEP[..., :channels]
    spec = InputSpec(size=(40, 24), background="#3366cc")

    found = tensor(tmp_path / "a", make(pixels), spec)

    values = pixels.astype(np.float64) / 65535
    colour = np.array([0x33, 0x66, 0xCC]) / 255
    if channels == 2:
        colour = colour @ [0.299, 0.587, 0.114]
    alpha = values[..., -1:]
    expected = values[..., :-1] * alpha + colour * (1 - alpha)
    assert np.allclose(np.broadcast_to(expected, (24, 40, 3)).transpose(2, 0, 1), found, atol=1e-5)


def test_premultiplied(tmp_path: Path) -> None:
    """Colours that a TIFF has multiplied by its alpha are divided by it."""
    alpha = np.full((24, 40, 1), 0x8000, np.uint16)
    data = tiff(np.concatenate([DEEP[..., :3] // 2, alpha], axis=2), {338: [1]})

    found, _, _ = opened(tmp_path / "a.tif", data)

    assert isinstance(found, Deep)
    assert np.allclose(DEEP[..., :3] / 65535, found.pixels[..., :3] / found.white, atol=1e-4)


@pytest.mark.parametrize("resampler", ["pillow", "torchvision", "torch", "opencv"])
@pytest.mark.parametrize("filter_name", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("resize", ["stretch", "crop", "letterbox", "fit"])
def test_a_deep_picture_is_resized_as_any(
    tmp_path: Path, resampler: Any, filter_name: Any, resize: Any
) -> None:
    """A picture of 16 bits comes to what its 8 bits come to, but for the rounding of these, in every way to resize."""
    spec = InputSpec(size=(20, 17), resampler=resampler, filter=filter_name, resize=resize)
    pixels = np.asarray(RGB).astype(np.uint16) * 257
    eight = fit(RGB, spec)

    deep = fit(opened(tmp_path / "a.png", deep_png(pixels))[0], spec)

    assert isinstance(deep, Deep)
    difference = np.asarray(shown(deep)).astype(int) - np.asarray(eight)
    # torch rounds its weights to 15 bits for 8-bit pictures.
    assert (3 if resampler == "torch" else 2) >= np.abs(difference).max()


@pytest.mark.parametrize("mode", ["L", "RGB", "BGR"])
def test_modes_of_deep_pictures(tmp_path: Path, mode: Any) -> None:
    """A picture of 16 bits comes to the channels that a model takes, as one of 8 bits does."""
    spec = InputSpec(size=(40, 24), mode=mode)
    data = deep_png(np.asarray(RGB).astype(np.uint16) * 257)

    found = tensor(tmp_path / "a.png", data, spec)

    assert np.allclose(to_tensor(RGB, spec), found, atol=1 / 255)


@pytest.mark.parametrize(("largest", "white"), [(4080, 4095), (200, 255)])
def test_few_bits_in_sixteen(tmp_path: Path, largest: int, white: int) -> None:
    """A grey picture of 16 bits that uses 12 or 8 of them is not drawn black, and the assumption is told."""
    values = np.linspace(0, largest, 24 * 40).astype(np.uint16).reshape(24, 40, 1)

    found, _, warnings = opened(tmp_path / "a.png", deep_png(values))

    assert [
        f"Its values have up to 16 bits and none is over {largest}: {white} was taken for white."
    ] == warnings
    assert np.allclose(values[..., 0] / white, to_tensor(found, SPEC)[0, 0], atol=1e-6)


def test_transparent_colour_of_sixteen_bits(tmp_path: Path) -> None:
    """A colour of 16 bits that is named as transparent becomes so."""
    data = deep_png(DEEP[..., :3], (b"tRNS", struct.pack(">3H", *DEEP[3, 5, :3].tolist())))

    found, _, _ = opened(tmp_path / "a.png", data)

    assert isinstance(found, Deep)
    assert (0, 65535) == (found.pixels[3, 5, 3], found.pixels[0, 0, 3])


@pytest.mark.parametrize(
    ("kind", "words"),
    [("TIFF", "It has several pages"), ("GIF", "It has several pictures (an animation)")],
)
def test_several_pictures(tmp_path: Path, kind: str, words: str) -> None:
    """Of several pages or frames the first is taken, which a warning says."""
    image, others = RGB.quantize(16), [Image.new("P", (9, 9), 3), Image.new("P", (7, 7), 4)]
    data = saved_bytes(image, kind, save_all=True, append_images=others)

    found, _, warnings = opened(tmp_path / "a", data)

    assert np.array_equal(to_tensor(image.convert("RGB"), SPEC), to_tensor(found, SPEC))
    assert [True] == [warning.startswith(words) for warning in warnings]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_tiff(tmp_path: Path, orientation: int) -> None:
    """A TIFF is turned as its tag says, with 16 bits as with 8."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    jpeg, _, _ = opened(tmp_path / "a.jpg", saved_bytes(RGB, "JPEG", exif=exif))

    for pixels in (np.asarray(RGB), DEEP[..., :3]):
        found, _, _ = opened(tmp_path / "a.tif", tiff(pixels, {274: [orientation]}))
        assert (jpeg.width, jpeg.height) == (found.width, found.height)
        corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (-1, 0)}
        corner |= {7: (-1, -1), 8: (0, -1)}
        values = found.pixels if isinstance(found, Deep) else np.asarray(found)
        assert pixels[corner[orientation]].tolist() == values[0, 0].tolist()


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".JPG"])
def test_suffixes_of_jpeg(tmp_path: Path, suffix: str) -> None:
    """A JPEG is one by its contents."""
    assert "JPEG" == opened(tmp_path / f"a{suffix}", saved_bytes(RGB, "JPEG"))[1]
