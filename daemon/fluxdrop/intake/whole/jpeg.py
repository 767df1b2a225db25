"""Check whether a JPEG file is complete, by its markers."""

from __future__ import annotations

import sys
from io import FileIO

from PIL import Image

from fluxdrop.intake.whole.scanner import Reader, Scanner, State
from fluxdrop.preprocess.jpeg import Outline, decode_without_end, outline_of


class JpegScanner(Scanner):
    """Scans one growing JPEG file, up to the mark of its end.

    What follows that mark, such as the further pictures of some cameras, is not waited for.
    """

    def _reset(self) -> None:
        super()._reset()
        self._outline = Outline()

    def _walk(self, file: Reader) -> State:
        with FileIO(file.fd, closefd=False) as stream:
            self._outline.read_on(stream)
        self._offset = self._outline.offset
        self.reason = f"it ends after {file.size} bytes, before the mark of its end"
        if self._outline.has_end:
            return "complete"
        if self._outline.has_too_many_scans:
            # Decoding refuses it.
            return "plausible"
        return "unended" if self._outline.lacks_end_only else "incomplete"


def shows_all_scans(fd: int, max_pixels: int = sys.maxsize) -> bool:
    """Return whether the JPEG open as *fd*, which lacks the mark of its end, decodes to all of its pixels.

    One with more than *max_pixels* does not.
    """
    with FileIO(fd, closefd=False) as stream:
        try:
            stream.seek(0)
            with Image.open(stream, formats=["JPEG"]) as image:
                if image.width * image.height > max_pixels:
                    return False
            decode_without_end(stream, outline_of(stream))
        except Exception:
            # Pillow's decoders may raise any exception for a damaged file.
            return False
    return True
