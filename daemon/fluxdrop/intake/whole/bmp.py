"""Check whether a BMP file is complete, by the place and the size of its pixels.

Format: https://learn.microsoft.com/en-us/windows/win32/gdi/bitmap-storage
"""

from __future__ import annotations

import struct

from fluxdrop.intake.whole.scanner import Reader, Scanner, State

_FILE_HEADER_BYTES = 14
_CORE_HEADER_BYTES = 12
_INFO_HEADER_BYTES = 40
_BITFIELDS = frozenset({0, 3, 6})
"""The compressions that compress nothing: BI_RGB, BI_BITFIELDS and BI_ALPHABITFIELDS."""


class BmpScanner(Scanner):
    """Scans a BMP file.

    The size of the file that its header gives is not used: many programs write another one.
    """

    def _walk(self, file: Reader) -> State:
        head = file.need(_FILE_HEADER_BYTES + _CORE_HEADER_BYTES, 0, "its header")
        offset, kind = struct.unpack_from("<II", head, 10)
        if kind == _CORE_HEADER_BYTES:
            width, height, _, bits = struct.unpack_from("<HHHH", head, 18)
            length = _rows(width, height, bits)
        else:
            head = file.need(_FILE_HEADER_BYTES + _INFO_HEADER_BYTES, 0, "its header")
            width, height, _, bits, compression, length = struct.unpack_from("<iiHHII", head, 18)
            if compression in _BITFIELDS:
                length = _rows(abs(width), abs(height), bits)
        if offset < _FILE_HEADER_BYTES + min(kind, _INFO_HEADER_BYTES) or not length:
            self.reason = "its header does not say yet where its pixels are"
            return "incomplete"
        if not file.holds(offset, length):
            self.reason = f"it has {file.size} bytes, and its pixels take {offset + length}"
            return "incomplete"
        return "plausible"


def _rows(width: int, height: int, bits: int) -> int:
    """Return the bytes of *height* rows, each of which is padded to a multiple of 32 bits."""
    return (width * bits + 31) // 32 * 4 * height
