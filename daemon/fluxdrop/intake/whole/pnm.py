"""Check whether a PNM file (PBM, PGM, PPM, PFM, PAM) is complete, by the size that its header gives.

Format: https://netpbm.sourceforge.net/doc/index.html, and for PFM https://www.pauldebevec.com/Research/HDR/PFM/
"""

from __future__ import annotations

import math
import re

from fluxdrop.intake.whole.scanner import Reader, Scanner, State

_MAX_HEADER_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_MAX_TEXT_BYTES = 1 << 24
_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])+"
_NUMBER = _SPACE + rb"(\d{1,9})"
_HEADERS = {
    b"14": re.compile(rb".." + _NUMBER + _NUMBER + rb"\s"),
    b"2356": re.compile(rb".." + _NUMBER + _NUMBER + _NUMBER + rb"\s"),
    b"Ff": re.compile(rb".." + _NUMBER + _NUMBER + _SPACE + rb"[-+.\deE]+\s"),
    b"7": re.compile(rb"..\s.*?^ENDHDR[ \t]*\n", re.DOTALL | re.MULTILINE),
}
_PAM_FIELD = re.compile(rb"^(WIDTH|HEIGHT|DEPTH|MAXVAL)\s+(\d{1,9})", re.MULTILINE)


class PnmScanner(Scanner):
    """Scans a PNM file. Of several pictures in a file only the first is looked at."""

    def _walk(self, file: Reader) -> State:
        head = file.read(_MAX_HEADER_BYTES, 0)[:_MAX_HEADER_BYTES]
        kind = head[1:2]
        header = next(header for kinds, header in _HEADERS.items() if kind in kinds)
        found = header.match(head)
        if found is None:
            self.reason = f"it ends after {file.size} bytes, within its header"
            # A longer header is none that decoding takes.
            return "incomplete" if file.size < _MAX_HEADER_BYTES else "plausible"
        start = found.end()
        numbers = [int(number) for number in found.groups()]
        if kind in b"123":
            return self._count_values(
                file, start, math.prod(numbers[:2]) * (3 if kind == b"3" else 1)
            )
        length = _pam_bytes(found[0]) if kind == b"7" else _pixel_bytes(kind, numbers)
        if not file.holds(start, length):
            self.reason = f"it has {file.size} bytes, and its pixels take {start + length}"
            return "incomplete"
        return "plausible"

    def _count_values(self, file: Reader, start: int, wanted: int) -> State:
        """Count the values that are written as text from *start* on, of which there have to be *wanted*."""
        if file.size > _MAX_TEXT_BYTES:
            # Counting them would take seconds.
            return "plausible"
        text = b"".join(
            file.read(_CHUNK_BYTES, offset) for offset in range(start, file.size, _CHUNK_BYTES)
        )
        is_bits = file.read(2, 0) == b"P1"
        # Bits need not be separated.
        count = text.count(b"0") + text.count(b"1") if is_bits else len(text.split())
        if count < wanted:
            self.reason = f"it has {count} of its {wanted} values"
            return "incomplete"
        return "plausible"


def _pixel_bytes(kind: bytes, numbers: list[int]) -> int:
    """Return how many bytes the pixels take, by the second letter of the file and the *numbers* of its header."""
    width, height = numbers[:2]
    if kind == b"4":
        return (width + 7) // 8 * height
    if kind in b"fF":
        return width * height * (12 if kind == b"F" else 4)
    return width * height * (3 if kind == b"6" else 1) * (1 if numbers[2] < 256 else 2)


def _pam_bytes(header: bytes) -> int:
    """Return how many bytes the pixels of a PAM file with *header* take."""
    fields = {name: int(value) for name, value in _PAM_FIELD.findall(header)}
    values = math.prod(fields.get(name, 1) for name in (b"WIDTH", b"HEIGHT", b"DEPTH"))
    return values * (1 if fields.get(b"MAXVAL", 255) < 256 else 2)
