"""Check whether a GIF file is complete, by following its blocks to the trailer.

Format: GIF89a specification (https://www.w3.org/Graphics/GIF/spec-gif89a.txt).
"""

from __future__ import annotations

from fluxdrop.intake.whole.scanner import Reader, Scanner, State
from fluxdrop.preprocess.gif import table_bytes

_HEAD_BYTES = 13
_EXTENSION, _IMAGE, _TRAILER = b"!", b",", b";"
_MAX_BLOCKS = 2_000_000


class GifScanner(Scanner):
    """Scans one growing GIF file."""

    def _reset(self) -> None:
        super()._reset()
        self._in_data = False
        """Whether data sub-blocks go on at `_offset`."""
        self._images = 0
        self._blocks = 0

    def _walk(self, file: Reader) -> State:
        self.reason = f"it ends after {file.size} bytes, within a block"
        if not self._offset:
            head = file.read(_HEAD_BYTES, 0)
            if len(head) < _HEAD_BYTES or not file.holds(_HEAD_BYTES, table_bytes(head[10])):
                return "incomplete"
            self._offset = _HEAD_BYTES + table_bytes(head[10])
        while self._blocks < _MAX_BLOCKS:
            self._blocks += 1
            if self._in_data:
                size = file.read(1, self._offset)
                if not size or not file.holds(self._offset + 1, size[0]):
                    return "incomplete"
                self._offset += 1 + size[0]
                self._in_data = size != b"\0"
                continue
            kind = file.read(1, self._offset)
            if kind == _TRAILER:
                return "complete"
            if not kind and self._images:
                # Viewers show a GIF without its trailer, and an animation without its last frames.
                return "plausible"
            if kind == _EXTENSION:
                count = 2
            elif kind == _IMAGE:
                head = file.read(10, self._offset)
                # Behind the colours of the image is one byte, the code size.
                count = 11 + (table_bytes(head[9]) if len(head) == 10 else 0)
                self._images += file.holds(self._offset, count)
            elif kind:
                # No block begins so. Decoding finds out what it is.
                return "plausible"
            else:
                return "incomplete"
            if not file.holds(self._offset, count):
                return "incomplete"
            self._offset += count
            self._in_data = True
        return "plausible"
