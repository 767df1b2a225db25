"""Check whether a JPEG file is complete, by its markers."""

from __future__ import annotations

from io import FileIO

from fluxdrop.intake.whole.scanner import Reader, Scanner, State
from fluxdrop.preprocess.jpeg import MAX_SCANS, Outline


class JpegScanner(Scanner):
    """Scans one growing JPEG file, up to the mark of its end.

    What follows that mark, such as the further pictures of some cameras, is not waited for.
    """

    def _reset(self) -> None:
        super()._reset()
        self._outline = Outline()

    def _walk(self, file: Reader) -> State:
        with FileIO(file.fd, closefd=False) as stream:
            self._outline.read_on(stream, MAX_SCANS)
        self._offset = self._outline.offset
        self.reason = f"it ends after {file.size} bytes, before the mark of its end"
        if self._outline.has_end:
            return "complete"
        if self._outline.is_endless or self._outline.scans > MAX_SCANS:
            # Decoding refuses it.
            return "plausible"
        return "unended" if self._outline.lacks_end_only else "incomplete"
