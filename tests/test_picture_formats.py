"""Which picture formats are taken: real files of each, by their names and first bytes."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image

from fluxdrop.picture_formats import FORMATS, HEAD_BYTES, PICTURE_SUFFIXES, format_of

WRITTEN = [one.name for one in FORMATS if one.name != "HEIF"]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_is_recognised_by_its_first_bytes(name: str) -> None:
    """What Pillow writes as a format is recognised as that format, and by Pillow under the same name."""
    buffer = BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, name)

    found = format_of(buffer.getvalue()[:HEAD_BYTES])

    assert found is not None
    with Image.open(buffer, formats=[name]) as image:
        assert (name, name) == (found.name, image.format)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"II+\0\x08\0\0\0", "TIFF"),
        (b"\xff\x4f\xff\x51\0\x2f", "JPEG2000"),
        (b"P4 8 8\n", "PPM"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", None),
        (b"", None),
        (b"PKzip", None),
    ],
)
def test_first_bytes(head: bytes, name: str | None) -> None:
    """Formats that share a container are told apart, and other files are none of them."""
    found = format_of(head)

    assert name == (found and found.name)


def test_a_suffix_stands_for_one_format() -> None:
    """No two formats have a suffix in common."""
    assert len(PICTURE_SUFFIXES) == sum(len(one.suffixes) for one in FORMATS)
