"""Count the scans of a JPEG by walking its markers, without decoding it.

Format: ITU-T T.81, annex B (https://www.w3.org/Graphics/JPEG/itu-t81.pdf).
"""

from __future__ import annotations

import re
from typing import IO

SIGNATURE = b"\xff\xd8"
_CHUNK_BYTES = 1 << 16
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_STANDALONE_MARKERS = frozenset({0x01, 0xD8})

# Fill bytes (FF) may precede a marker. Within a scan's data FF00 is an escaped byte and FFD0 to FFD7
# are restart markers: both are part of the scan.
_MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")


def count_scans(file: IO[bytes], limit: int) -> int:
    """Return the number of scans in the JPEG *file*; counting stops just above *limit*.

    A file with a very large number of other segments counts as one with too many scans.
    """
    offset = len(SIGNATURE)
    scans = 0
    for _ in range(100 * limit):
        offset, marker = _next_marker(file, offset)
        if marker in (None, _END_OF_IMAGE) or scans > limit:
            return scans
        scans += marker == _START_OF_SCAN
        if marker not in _STANDALONE_MARKERS:
            file.seek(offset)
            offset += max(2, int.from_bytes(file.read(2), "big"))
    return limit + 1


def _next_marker(file: IO[bytes], offset: int) -> tuple[int, int | None]:
    """Find the first marker at or after *offset*.

    Returns:
        The offset just behind the marker, and the marker's code; at the end of the file, None.
    """
    file.seek(offset)
    data = b""
    while chunk := file.read(_CHUNK_BYTES):
        # The two bytes of a marker may be in two chunks.
        data = data[-1:] + chunk
        offset += len(chunk)
        found = _MARKER.search(data)
        if found:
            return offset - len(data) + found.end(), data[found.end() - 1]
    return offset, None
