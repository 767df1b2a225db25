"""What a JPEG's markers say of it, without decoding it; and how one that lacks its end is decoded.

Format: ITU-T T.81, annex B (https://www.w3.org/Graphics/JPEG/itu-t81.pdf).
"""

from __future__ import annotations

import random
import re
from io import BytesIO
from typing import IO

import numpy as np
from PIL import Image

SIGNATURE = b"\xff\xd8"
_CHUNK_BYTES = 1 << 14
_MAX_CHUNK_BYTES = 1 << 20
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_END = b"\xff\xd9"
_STANDALONE_MARKERS = frozenset({0x01, 0xD8})
# A frame header; DHT, JPG and DAC have codes among those (table B.1).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE_FRAMES = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ALL_COEFFICIENTS = (1 << 64) - 1
MAX_SCANS = 100
"""The most scans that are decoded: each costs a pass over all pixels, however few bytes it has.

Programs write about ten.
"""
_MAX_SEGMENTS = 10_000

_FIRST_RESTART = 0xD0
_RESTARTS = 8
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
# Which bytes behind an FF make it a marker. Fill bytes (FF) may precede it. Within a scan's data FF00 is an
# escaped byte and FFD0 to FFD7 are restart markers: both are part of the scan.
_IS_MARKER = np.ones(256, bool)
_IS_MARKER[[0x00, *range(_FIRST_RESTART, _FIRST_RESTART + _RESTARTS), 0xFF]] = False


class Outline:
    """The segments of a JPEG, up to its end or the end of the file; `read_on` goes on when the file has grown."""

    def __init__(self) -> None:
        """Begin at the start of a file."""
        self.offset = len(SIGNATURE)
        """Up to where the file was read; it goes on from there."""
        self.scans = 0
        self.has_end = False
        """Whether the marker that ends the picture was found."""
        self.is_endless = False
        """Whether it has more segments than are followed."""
        self.in_scan = False
        """Whether a scan's data begins at `offset`, or goes on there."""
        self.scan_offset = 0
        """Where the data of the last scan begins."""
        self._segments = 0
        self._left: dict[int, int] = {}
        """The coefficients of each component that no scan has brought to the full, as bits."""
        self._is_progressive = False

    @property
    def lacks_end_only(self) -> bool:
        """Return whether the file ended in its last scan. Whether that is whole, `decode_without_end` says."""
        is_covered = bool(self._left) and not any(self._left.values())
        return self.in_scan and is_covered and not self.has_end

    @property
    def has_too_many_scans(self) -> bool:
        """Return whether it has more scans than are decoded, or so many segments that they were not followed."""
        return self.is_endless or self.scans > MAX_SCANS

    def read_on(self, file: IO[bytes]) -> None:
        """Read *file* up to its end or just above `MAX_SCANS` scans.

        A segment that is cut off is read again the next time.
        """
        while not self.has_end and self.scans <= MAX_SCANS:
            behind, marker = self._next_marker(file)
            if marker is None:
                return
            if marker == _END_OF_IMAGE:
                self.offset, self.has_end = behind, True
                return
            segment = b""
            if marker not in _STANDALONE_MARKERS:
                file.seek(behind)
                field = file.read(2)
                length = max(2, int.from_bytes(field, "big"))
                segment = file.read(length - 2)
                if len(field) + len(segment) < length:
                    self.in_scan = False
                    return
                behind += length
            self._segments += 1
            if self._segments > _MAX_SEGMENTS:
                self.is_endless = True
                return
            self.offset = behind
            self._enter(marker, segment)

    def _enter(self, marker: int, segment: bytes) -> None:
        self.in_scan = marker == _START_OF_SCAN
        if marker in _FRAMES:
            # Six bytes of precision, height, width and the number of components, then three for each.
            self._left = dict.fromkeys(segment[6::3], _ALL_COEFFICIENTS)
            self._is_progressive = marker in _PROGRESSIVE_FRAMES
        elif self.in_scan:
            self.scans += 1
            self.scan_offset = self.offset
            self._cover(segment)

    def _cover(self, header: bytes) -> None:
        """Note what the scan with *header* brings to the full."""
        count = header[0] if header else 0
        if len(header) < 4 + 2 * count:
            return
        first, last, approximation = header[1 + 2 * count : 4 + 2 * count]
        bits = _ALL_COEFFICIENTS
        if self._is_progressive:
            # The low four bits say how many bits of each value are left to later scans.
            is_full = not approximation & 15 and first <= last < 64
            bits = (1 << last + 1) - (1 << first) if is_full else 0
        for component in header[1 : 1 + 2 * count : 2]:
            if component in self._left:
                self._left[component] &= ~bits

    def _next_marker(self, file: IO[bytes]) -> tuple[int, int | None]:
        """Find the first marker at or after `offset`; move `offset` up to it, or to the end of the file.

        Returns:
            The offset just behind the marker, and the marker's code; at the end of the file, None.
        """
        size = _CHUNK_BYTES
        file.seek(self.offset)
        while len(chunk := file.read(size)) > 1:
            data = np.frombuffer(chunk, np.uint8)
            # An expression of `re` takes ten times as long, more than a small picture takes to decode.
            before = np.flatnonzero(data[:-1] == 0xFF)
            found = before[_IS_MARKER[data[before + 1]]]
            if found.size:
                behind = int(found[0]) + 2
                self.offset += behind - 2
                return self.offset + 2, chunk[behind - 1]
            # The two bytes of a marker may be in two chunks.
            self.offset += len(chunk) - 1
            file.seek(self.offset)
            size = min(2 * size, _MAX_CHUNK_BYTES)
        return self.offset, None


def outline_of(file: IO[bytes]) -> Outline:
    """Return the outline of the JPEG *file*, read from its beginning."""
    outline = Outline()
    outline.read_on(file)
    return outline


def decode_without_end(file: IO[bytes], outline: Outline) -> Image.Image:
    """Decode a JPEG that lacks the mark of its end and nothing else.

    libjpeg shows grey, without an error, where data is missing. So this decodes the picture twice, with different
    bytes behind its own: a scan that is whole does not read them, and both pictures are the same.

    Args:
        file: The file.
        outline: Its outline, which `lacks_end_only`.

    Raises:
        OSError: More than that is missing, or the picture is damaged.
    """
    file.seek(0)
    # A marker that is cut off would swallow the byte behind it.
    data = file.read().rstrip(b"\xff")
    shown = _loaded(data + _END)
    # The first bits, which may have to complete a value of some bits, are the reverse of those that libjpeg assumes.
    noise = random.Random(0).randbytes(4096)  # noqa: S311 - not a secret
    other = b"\xfe" + noise.replace(b"\xff", b"\xa5")
    # The scan may be cut off where a restart marker has to follow.
    restarts = _RESTART.findall(data, outline.scan_offset)
    first = restarts[-1][0] + 1 - _FIRST_RESTART if restarts else 0
    for number in range(first, first + _RESTARTS):
        other += bytes([0xFF, _FIRST_RESTART + number % _RESTARTS]) + other[:64]
    if _loaded(data + other + _END).tobytes() != shown.tobytes():
        raise OSError(f"its last scan is cut off at byte {len(data)}")
    return shown


def _loaded(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data), formats=["JPEG"])
    image.load()
    return image
