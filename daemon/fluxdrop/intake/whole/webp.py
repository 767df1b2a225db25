"""Check whether a WebP file is complete, by the length that its head gives.

Format: RFC 9649, section 2 (https://www.rfc-editor.org/rfc/rfc9649#section-2).
"""

from __future__ import annotations

from fluxdrop.intake.whole.scanner import Reader, Scanner, State

_HEAD_BYTES = 12
_PIXEL_CHUNKS = frozenset({b"VP8 ", b"VP8L", b"ANMF"})
_MAX_CHUNKS = 100_000


class WebpScanner(Scanner):
    """Scans a WebP file."""

    def _walk(self, file: Reader) -> State:
        length = int.from_bytes(file.read(8, 0)[4:], "little")
        if not file.holds(8, length):
            self.reason = f"it has {file.size} bytes of the {8 + length} that its head gives"
            return "incomplete"
        # A head that is written last gives too small a length until then.
        offset = _HEAD_BYTES
        has_pixels = False
        for _ in range(_MAX_CHUNKS):
            if offset >= 8 + length:
                break
            head = file.read(8, offset)
            has_pixels = has_pixels or head[:4] in _PIXEL_CHUNKS
            size = int.from_bytes(head[4:], "little")
            offset += 8 + size
            if len(head) < 8 or offset > 8 + length:
                self.reason = "its head gives a length that ends within a chunk"
                return "incomplete"
            offset += size & 1
        if not has_pixels:
            self.reason = "there are no pixels within the length that its head gives"
            return "incomplete"
        return "plausible"
