"""What is beside the pixels: colour profiles are applied, and other metadata are skipped, however large."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from fluxdrop.preprocess.deep import Deep
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.reduced import Reduced
from support.picture_kinds import deep_png, saved_bytes, tiff
from support.pictures import RGB, chunk, png
from support.profiles import ADOBE_RGB, GREY_GAMMA_1, rgb_profile

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def opened(path: Path, data: bytes) -> tuple[Image.Image | Deep, list[str]]:
    """The picture *data* as it is decoded, and the warnings."""
    path.write_bytes(data)
    warnings: list[str] = []
    image, _ = open_picture(path, max_file_bytes=10**8, max_pixels=10**6, deep=True, notes=warnings)
    assert not isinstance(image, Reduced)
    return image, warnings


def values(image: Image.Image | Deep) -> Any:
    """The pixels of a picture of 8 bits."""
    assert isinstance(image, Image.Image)
    return np.asarray(image).astype(int)


MUTED = (100, 150, 100)
# http://www.brucelindbloom.com/Eqn_RGB_XYZ_Matrix.html: Adobe RGB (1998) and sRGB, both of D65.
ADOBE_TO_XYZ = [
    [0.57673, 0.18556, 0.18819],
    [0.29738, 0.62735, 0.07527],
    [0.02703, 0.07069, 0.99111],
]
XYZ_TO_SRGB = [
    [3.24045, -1.53714, -0.49853],
    [-0.96927, 1.87601, 0.04156],
    [0.05564, -0.20403, 1.05723],
]


def in_srgb(colour: tuple[int, ...]) -> Any:
    """A colour of Adobe RGB in sRGB, by the definitions of both."""
    light = (np.array(colour) / 255) ** 2.2
    linear = np.array(XYZ_TO_SRGB) @ np.array(ADOBE_TO_XYZ) @ light
    return 255 * np.where(
        linear > 0.0031308, 1.055 * linear.clip(0.0031308) ** (1 / 2.4) - 0.055, 12.92 * linear
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_wide_gamut(tmp_path: Path, kind: str) -> None:
    """A colour of Adobe RGB comes to the colour of sRGB that viewers show."""
    options: dict[str, Any] = {"lossless": True, "quality": 100} if kind != "TIFF" else {}
    data = saved_bytes(Image.new("RGB", (8, 8), MUTED), kind, icc_profile=ADOBE_RGB, **options)

    found, warnings = opened(tmp_path / "a", data)

    assert ["Its colours were converted to sRGB, because of its colour profile."] == warnings
    assert (abs(values(found)[4, 4] - in_srgb(MUTED)) <= 3).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_srgb_changes_nothing(tmp_path: Path, kind: str) -> None:
    """A profile that is sRGB leaves each pixel as it was."""
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}

    found, warnings = opened(tmp_path / "a", saved_bytes(RGB, kind, icc_profile=SRGB, **options))

    assert np.array_equal(values(RGB), values(found))
    assert [] == warnings


# An LCD of 2005: its gamut is three quarters of that of sRGB.
NARROW = rgb_profile((0.394, 0.227, 0.027), (0.415, 0.679, 0.110), (0.155, 0.095, 0.688), 1.8)


@pytest.mark.parametrize(
    ("mode", "profile"),
    [("L", GREY_GAMMA_1), ("LA", GREY_GAMMA_1), ("RGB", NARROW), ("RGBA", NARROW)],
)
def test_other_profiles(tmp_path: Path, mode: str, profile: bytes) -> None:
    """Pixels with the profile of a monitor or of grey stay as they are, as in a model's own pipeline."""
    image = RGB.convert(mode)

    found, warnings = opened(tmp_path / "a.png", saved_bytes(image, "PNG", icc_profile=profile))

    assert ([], mode) == (warnings, found.mode)
    assert np.array_equal(values(image), values(found))


def test_transparency_stays(tmp_path: Path) -> None:
    """A profile changes colours, not the transparency."""
    image = Image.new("RGBA", (8, 8), (100, 150, 100, 77))

    found, _ = opened(tmp_path / "a.png", saved_bytes(image, "PNG", icc_profile=ADOBE_RGB))

    assert 77 == values(found)[0, 0, 3]
    assert 60 < values(found)[0, 0, 0] < 80


def test_profile_of_a_deep_picture(tmp_path: Path) -> None:
    """The colours of a picture of 16 bits are converted with 8 bits, which is told."""
    pixels = np.full((8, 8, 3), (100 * 257, 150 * 257, 100 * 257), np.uint16)
    profile = (b"iCCP", b"a\0\0" + zlib.compress(ADOBE_RGB))

    found, warnings = opened(tmp_path / "a.png", deep_png(pixels, profile))

    assert 60 < values(found)[0, 0, 0] < 80
    assert ["Its colours were converted to sRGB with 8 bits, because of its colour profile."] == (
        warnings
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF"])
@pytest.mark.parametrize(
    "profile", [b"nothing" * 30, ADOBE_RGB[:200], ADOBE_RGB[:16] + b"RGB " + bytes(500)]
)
def test_damaged_profiles(tmp_path: Path, kind: str, profile: bytes) -> None:
    """A damaged profile is a warning, and the pixels stay as they are."""
    image = RGB.convert("P") if kind == "GIF" else RGB
    plain, _ = opened(tmp_path / "a", saved_bytes(image, kind))

    found, warnings = opened(tmp_path / "a", saved_bytes(image, kind, icc_profile=profile))

    assert np.array_equal(values(plain), values(found))
    if kind != "GIF":
        assert ["Its colour profile is damaged, and was not used."] == warnings


def test_profile_of_another_kind(tmp_path: Path) -> None:
    """A grey picture keeps its pixels, though it has the profile of the colours that it was made of."""
    image = Image.new("L", (8, 8), 100)

    found, warnings = opened(tmp_path / "a.png", saved_bytes(image, "PNG", icc_profile=ADOBE_RGB))

    assert (100, []) == (values(found)[0, 0], warnings)


def test_lab(tmp_path: Path) -> None:
    """A TIFF of L*a*b* colours comes to the colours of sRGB that they are."""
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(RGB, srgb, lab, outputMode="LAB")
    assert image is not None

    found, _ = opened(tmp_path / "a.tif", saved_bytes(image, "TIFF"))

    assert 6 >= abs(values(found) - values(RGB)).max()


def test_primaries_of_p3(tmp_path: Path) -> None:
    """A profile with the primaries of Display P3 makes its red a stronger one."""
    p3 = rgb_profile(
        (0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841), 2.2
    )
    image = Image.new("RGB", (8, 8), (200, 60, 60))

    found, _ = opened(tmp_path / "a.png", saved_bytes(image, "PNG", icc_profile=p3))

    red, green, _ = values(found)[0, 0]
    assert (red > 205, green < 55) == (True, True)


PIXELS = (b"IDAT", zlib.compress((b"\0" + bytes(range(12))) * 4))


@pytest.mark.parametrize(
    "metadata",
    [
        (b"zTXt", b"workflow\0\0" + zlib.compress(b'{"nodes": []}' * 200_000)),
        (b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(bytes(3_000_000))),
        (b"tEXt", b"workflow\0" + b"x" * 80_000_000),
        (b"iCCP", b"a\0\0" + zlib.compress(SRGB + bytes(2_000_000))),
        (b"iCCP", b"a\0\0" + b"not zlib"),
        (b"eXIf", bytes(200_000)),
        (b"zTXt", b"damaged"),
        (b"teXt", b"of nobody's"),
    ],
)
def test_large_metadata_of_png(tmp_path: Path, metadata: tuple[bytes, bytes]) -> None:
    """A PNG is taken with metadata of any size, or damaged ones, as its pixels are sound."""
    plain, _ = opened(tmp_path / "a.png", png(4, 4, PIXELS))

    found, _ = opened(tmp_path / "a.png", png(4, 4, metadata, PIXELS))

    assert np.array_equal(values(plain), values(found))


def test_large_metadata_of_jpeg(tmp_path: Path) -> None:
    """A JPEG is taken with metadata of megabytes, or damaged ones."""
    plain = saved_bytes(RGB, "JPEG")
    segments = b"".join(
        b"\xff" + marker + b"\xff\xff" + head + bytes(65533 - len(head))
        for marker, head in [
            (b"\xe1", b"Exif\0\0"),
            (b"\xe2", b"ICC_PROFILE\0\1\1"),
            (b"\xed", b""),
        ]
        * 30
    )

    found, warnings = opened(tmp_path / "a.jpg", plain[:2] + segments + plain[2:])

    assert np.array_equal(values(opened(tmp_path / "b.jpg", plain)[0]), values(found))
    assert all("damaged" in warning for warning in warnings)


def test_damaged_exif(tmp_path: Path) -> None:
    """Damaged EXIF data leave a picture as it is."""
    data = saved_bytes(RGB, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")

    assert RGB.size == (opened(tmp_path / "a.jpg", data)[0].width, RGB.height)


def test_private_tags_of_tiff(tmp_path: Path) -> None:
    """A TIFF is taken with private tags of any kind."""
    pixels = np.asarray(RGB)
    plain, _ = opened(tmp_path / "a.tif", tiff(pixels))

    found, _ = opened(tmp_path / "a.tif", tiff(pixels, {65000: list(range(50_000)), 34853: [0]}))

    assert np.array_equal(values(plain), values(found))


def test_comments_of_gif(tmp_path: Path) -> None:
    """A GIF is taken with comments of megabytes, before and after its picture."""
    plain = saved_bytes(RGB.convert("P"), "GIF")
    comment = b"\x21\xfe" + (b"\xff" + bytes(255)) * 20_000 + b"\0"
    image = plain.index(b"\x2c", 13 + 768) if plain[10] & 7 == 7 else plain.index(b"\x2c", 13)

    found, warnings = opened(
        tmp_path / "a.gif", plain[:image] + comment + plain[image:-1] + comment + b";"
    )

    assert np.array_equal(values(opened(tmp_path / "b.gif", plain)[0]), values(found))
    assert [] == warnings


def test_chunks_are_not_counted(tmp_path: Path) -> None:
    """A PNG whose pixels lie in many chunks is taken."""
    data = PIXELS[1]
    parts = [(b"IDAT", data[n : n + 1]) for n in range(len(data))]

    found, _ = opened(tmp_path / "a.png", png(4, 4, *parts))

    assert 4 == found.width
    assert chunk(b"IDAT", data)[4:8] == b"IDAT"
