"""How often does a JPEG go over its pixels? Its markers are walked, without decoding it.

Format: ITU-T T.81, annex B (https://www.w3.org/Graphics/JPEG/itu-t81.pdf).
"""

from __future__ import annotations

import re
from typing import IO

SIGNATURE = b"\xff\xd8"
_PIECE = 1 << 16
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_WITHOUT_LENGTH = frozenset({0x01, 0xD8})

# Fill bytes may stand before a marker; in a scan's data, FF00 is a byte and FFD0 to FFD7 go with it.
_MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")


def count_scans(file: IO[bytes], most: int) -> int:
    """How many scans the JPEG in *file* has, counted to a little over *most* at the most.

    A file of very many other segments counts as one of too many scans.
    """
    place = len(SIGNATURE)
    scans = 0
    for _ in range(100 * most):
        place, marker = _next_marker(file, place)
        if marker in (None, _END_OF_IMAGE) or scans > most:
            return scans
        scans += marker == _START_OF_SCAN
        if marker not in _WITHOUT_LENGTH:
            file.seek(place)
            place += max(2, int.from_bytes(file.read(2), "big"))
    return most + 1


def _next_marker(file: IO[bytes], place: int) -> tuple[int, int | None]:
    """The first marker at or after *place*: where what follows it begins, and its code."""
    file.seek(place)
    data = b""
    while piece := file.read(_PIECE):
        # A marker may have its two bytes in two pieces.
        data = data[-1:] + piece
        place += len(piece)
        found = _MARKER.search(data)
        if found:
            return place - len(data) + found.end(), data[found.end() - 1]
    return place, None
