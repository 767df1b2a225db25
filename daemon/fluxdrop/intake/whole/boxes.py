"""The boxes of which HEIF, AVIF and JPEG 2000 files consist.

Format: ISO/IEC 14496-12, 4.2 (https://standards.iso.org/ittf/PubliclyAvailableStandards/), and ITU-T T.800, annex I.4
(https://www.itu.int/rec/T-REC-T.800).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fluxdrop.intake.whole.scanner import Reader

_MAX_BOXES = 100_000


class Box(NamedTuple):
    """A box in a file."""

    kind: bytes
    start: int
    """Where its contents begin."""
    end: int
    """Where it ends; behind the end of the file if it is cut off."""

    @property
    def name(self) -> str:
        """What people call it."""
        return f"its {self.kind.decode()} box" if self.kind.isalnum() else "a box"


def boxes(file: Reader, start: int, end: int) -> Iterator[Box]:
    """Yield the boxes from *start* to *end*, up to the first that is cut off or is none."""
    for _ in range(_MAX_BOXES):
        head = file.read(16, start)[: max(0, end - start)]
        if len(head) < 8:
            if head:
                yield Box(b"", start, start + 8)
            return
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        contents = start + 8
        if length == 1:
            length, contents = int.from_bytes(head[8:16], "big"), start + 16
        elif length == 0:
            length = end - start
        if length < contents - start or not kind.isascii():
            yield Box(b"", start, start)
            return
        yield Box(kind, contents, start + length)
        start += length
