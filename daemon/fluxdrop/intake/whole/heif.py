"""Check whether a HEIF or AVIF file is complete, by its boxes and the places of its items.

Format: ISO/IEC 14496-12, 4.2 and 8.11.3 (https://standards.iso.org/ittf/PubliclyAvailableStandards/).
"""

from __future__ import annotations

from collections.abc import Iterator

from fluxdrop.intake.whole.boxes import Box, boxes
from fluxdrop.intake.whole.scanner import CutError, Reader, Scanner, State

_MAX_META_BYTES = 1 << 24
_IN_FILE = 0
"""The construction method of items that lie anywhere in the file."""


class HeifScanner(Scanner):
    """Scans a HEIF or AVIF file."""

    def _walk(self, file: Reader) -> State:
        has_pixels = False
        for box in boxes(file, 0, file.size):
            if box.end > file.size:
                raise CutError(box.name)
            if box.kind == b"meta":
                end = max(_extents(file, box), default=0)
                if end > file.size:
                    self.reason = f"it has {file.size} bytes, and its items take {end}"
                    return "incomplete"
            has_pixels = has_pixels or box.kind in (b"mdat", b"idat") or _has(file, box, b"idat")
        if not has_pixels:
            self.reason = f"it ends after {file.size} bytes, before its pixels"
            return "incomplete"
        return "plausible"


def _has(file: Reader, box: Box, kind: bytes) -> bool:
    return box.kind == b"meta" and any(
        inner.kind == kind for inner in boxes(file, box.start + 4, box.end)
    )


def _extents(file: Reader, meta: Box) -> Iterator[int]:
    """Yield where the items that the box *meta* tells of end in the file."""
    for box in boxes(file, meta.start + 4, meta.end):
        if box.kind == b"iloc" and box.end - box.start <= _MAX_META_BYTES:
            yield from _ends(file.read(box.end - box.start, box.start))


def _ends(data: bytes) -> Iterator[int]:
    """Yield where the items end by *data*, the contents of a box "iloc"; up to where it is damaged."""
    has_method, sizes = data[:1] > b"\0", int.from_bytes(data[4:6], "big")
    offset_bytes, length_bytes, base_bytes, index_bytes = (
        sizes >> shift & 15 for shift in (12, 8, 4, 0)
    )
    wide = 4 if data[:1] > b"\1" else 2
    position = 6

    def number(count: int) -> int:
        nonlocal position
        position += count
        if position > len(data):
            raise EOFError
        return int.from_bytes(data[position - count : position], "big")

    try:
        for _ in range(number(wide)):
            number(wide)
            method = number(2) & 15 if has_method else _IN_FILE
            number(2)
            base = number(base_bytes)
            for _ in range(number(2)):
                if has_method:
                    number(index_bytes)
                end = base + number(offset_bytes) + number(length_bytes)
                if method == _IN_FILE:
                    yield end
    except EOFError:
        return
