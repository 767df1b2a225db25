"""The picture formats that fluxdrop takes: their suffixes, and how their first bytes look."""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_BYTES = 64
"""How many of a file's first bytes `format_of` needs."""


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """A format of picture files."""

    name: str
    """Pillow's name for it, which is also what records say."""
    title: str
    """What people call it."""
    suffixes: tuple[str, ...]
    """The ends of its files' names, in lower case with the dot; the usual one first."""
    head: re.Pattern[bytes]
    """Matches the first bytes of its files."""


def _format(name: str, title: str, suffixes: str, head: bytes) -> PictureFormat:
    return PictureFormat(name, title, tuple(suffixes.split()), re.compile(head, re.DOTALL))


# A file of AVIF or HEIF begins with a box "ftyp" that lists its brands, four bytes each (ISO/IEC
# 14496-12, 4.3; brands: ISO/IEC 23008-12, 10.2, and https://aomediacodec.github.io/av1-avif/#brands).
# Either kind may have the brand "mif1", so what has AVIF's own brand is looked for first.
FORMATS = (
    _format("PNG", "PNG", ".png", rb"\x89PNG\r\n\x1a\n"),
    _format("JPEG", "JPEG", ".jpg .jpeg .jpe .jfif", rb"\xff\xd8\xff"),
    _format("WEBP", "WebP", ".webp", rb"RIFF.{4}WEBP"),
    _format("TIFF", "TIFF", ".tif .tiff", rb"II[*+]\0|MM\0[*+]"),
    _format("BMP", "BMP", ".bmp .dib", rb"BM"),
    _format("GIF", "GIF", ".gif", rb"GIF8[79]a"),
    _format("AVIF", "AVIF", ".avif", rb".{4}ftyp(?:.{4})*?avi[fs]"),
    _format(
        "JPEG2000",
        "JPEG 2000",
        ".jp2 .j2k .jpf .jpx .j2c .jpc",
        rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n",
    ),
    _format("HEIF", "HEIF", ".heic .heif .hif", rb".{4}ftyp(?:hei[cmxs]|hev[cmxs]|mif1|msf1)"),
    _format("PPM", "PNM", ".ppm .pgm .pbm .pnm .pam .pfm", rb"P[1-7fF][\s#]"),
)

PICTURE_SUFFIXES = frozenset(suffix for one in FORMATS for suffix in one.suffixes)

FORMAT_TITLES = ", ".join(one.title for one in FORMATS[:-1]) + f" or {FORMATS[-1].title}"
"""The formats, as messages list them."""

USUAL_SUFFIXES = ", ".join(one.suffixes[0] for one in FORMATS)
"""The usual suffix of each format, as messages list them."""


def format_of(head: bytes) -> PictureFormat | None:
    """Return the format of a file, given its first `HEAD_BYTES` bytes or all of a shorter file."""
    return next((one for one in FORMATS if one.head.match(head)), None)
