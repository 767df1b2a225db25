"""Whether a picture file is whole, by its structure: a module for each format, which decodes nothing."""

from __future__ import annotations

import os
import re

from fluxdrop.intake.whole.bmp import BmpScanner
from fluxdrop.intake.whole.gif import GifScanner
from fluxdrop.intake.whole.heif import HeifScanner
from fluxdrop.intake.whole.jpeg import JpegScanner
from fluxdrop.intake.whole.jpeg2000 import Jpeg2000Scanner
from fluxdrop.intake.whole.png import SIGNATURE, PngScanner
from fluxdrop.intake.whole.pnm import PnmScanner
from fluxdrop.intake.whole.scanner import Reader, Scanner, State
from fluxdrop.intake.whole.tiff import TiffScanner
from fluxdrop.intake.whole.webp import WebpScanner
from fluxdrop.picture_formats import HEAD_BYTES, format_of

SCANNERS: dict[str, type[Scanner]] = {
    "PNG": PngScanner,
    "JPEG": JpegScanner,
    "WEBP": WebpScanner,
    "TIFF": TiffScanner,
    "BMP": BmpScanner,
    "GIF": GifScanner,
    "AVIF": HeifScanner,
    "HEIF": HeifScanner,
    "JPEG2000": Jpeg2000Scanner,
    "PPM": PnmScanner,
}
"""The scanner of each format, by its name in `fluxdrop.picture_formats`."""

_BEGINNINGS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"II*\0",
    b"II+\0",
    b"MM\0*",
    b"MM\0+",
    b"BM",
    b"GIF87a",
    b"GIF89a",
    b"\xff\x4f\xff\x51",
    b"\0\0\0\x0cjP  \r\n\x87\n",
)
_UNFINISHED_HEAD = re.compile(
    rb"P[1-7fF]?|RI?F?|RIFF.{0,7}|\0{1,3}|\0\0..{0,5}|....ftyp.*", re.DOTALL
)
"""Further beginnings, in which not every byte is the same in each file."""


class HeadScanner(Scanner):
    """Waits for a file whose first bytes do not tell its format yet."""

    def _walk(self, file: Reader) -> State:
        self.reason = f"it ends after {file.size} bytes, within its first ones"
        return "incomplete"


def scanner_for(fd: int) -> Scanner | None:
    """Return a scanner for the format of the file open as *fd*; None if the file begins like none.

    A file that ends where its first bytes do not tell yet gets one that waits for more of them.
    """
    head = os.pread(fd, HEAD_BYTES, 0)
    found = format_of(head)
    if found is not None:
        return SCANNERS[found.name]()
    if head and any(beginning.startswith(head) for beginning in _BEGINNINGS):
        return PngScanner() if SIGNATURE.startswith(head) else HeadScanner()
    if len(head) < HEAD_BYTES and _UNFINISHED_HEAD.fullmatch(head):
        return HeadScanner()
    return None
