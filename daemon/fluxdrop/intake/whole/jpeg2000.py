"""Check whether a JPEG 2000 file is complete, by its boxes and the tile-parts of its codestream.

Format: ITU-T T.800, annexes A and I (https://www.itu.int/rec/T-REC-T.800).
"""

from __future__ import annotations

from fluxdrop.intake.whole.boxes import boxes
from fluxdrop.intake.whole.scanner import CutError, Reader, Scanner, State

_CODESTREAM = b"\xff\x4f"
_START_OF_TILE_PART = b"\xff\x90"
_END = b"\xff\xd9"
_MAX_SEGMENTS = 100_000


class Jpeg2000Scanner(Scanner):
    """Scans a JPEG 2000 file, with boxes or without."""

    def _walk(self, file: Reader) -> State:
        if file.read(2, 0) == _CODESTREAM:
            return self._walk_codestream(file, 0, file.size)
        state: State = "incomplete"
        self.reason = f"it ends after {file.size} bytes, before its pixels"
        for box in boxes(file, 0, file.size):
            if box.end > file.size:
                raise CutError(box.name)
            if box.kind == b"jp2c":
                state = self._walk_codestream(file, box.start, box.end)
        return state

    def _walk_codestream(self, file: Reader, start: int, end: int) -> State:
        self.reason = f"it ends after {file.size} bytes, before the mark of its end"
        offset = start + len(_CODESTREAM)
        for _ in range(_MAX_SEGMENTS):
            marker = file.read(2, offset)
            if marker == _END:
                return "complete"
            if len(marker) == 2 and marker[0] != 0xFF:
                # Decoding finds out what it is.
                return "plausible"
            segment = file.need(10, offset + 2, "its codestream")
            if marker != _START_OF_TILE_PART:
                offset += 2 + int.from_bytes(segment[:2], "big")
                continue
            length = int.from_bytes(segment[4:8], "big")
            if length == 0:
                # The last part goes on to the end.
                return "complete" if file.read(2, end - 2) == _END else "incomplete"
            offset += length
        return "plausible"
