"""Check whether a TIFF file is complete: whether all that its directories point to lies within it.

Format: TIFF 6.0, section 2 (https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf), and BigTIFF
(https://libtiff.gitlab.io/libtiff/specification/bigtiff.html).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluxdrop.intake.whole.scanner import CutError, Reader, Scanner, State

_MAX_DIRECTORIES = 10_000
_MAX_VALUES = 1 << 22
_MAX_ENTRIES = 0xFFFF
_ENTRY_COST = 16
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BIG_TYPE_BYTES = _TYPE_BYTES | {16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_SUB_DIRECTORIES = 330
_PIXELS = {273: 279, 324: 325, 513: 514}
"""The tags of the offsets and of the lengths of strips, of tiles, and of a JPEG."""


class _Layout(NamedTuple):
    """How a file writes its numbers."""

    order: str
    """``<`` or ``>``."""
    word: str
    """The format of an offset, for `struct`."""
    length: str
    """The format of a directory's number of entries."""
    types: dict[int, int]
    """The size of each type."""

    @property
    def word_bytes(self) -> int:
        """The size of an offset."""
        return struct.calcsize(f"<{self.word}")


class TiffScanner(Scanner):
    """Scans a TIFF file, with all its pages."""

    def _walk(self, file: Reader) -> State:
        order = "<" if file.read(2, 0) == b"II" else ">"
        is_big = struct.unpack(f"{order}H", file.need(2, 2, "its header"))[0] == 43
        layout = (
            _Layout(order, "Q", "Q", _BIG_TYPE_BYTES)
            if is_big
            else _Layout(order, "I", "H", _TYPE_BYTES)
        )
        first = _number(file, layout, 8 if layout.word == "Q" else 4, layout.word)
        if first == 0:
            self.reason = "its header does not say yet where its pages are"
            return "incomplete"
        left, seen, cost = [first], set[int](), 0
        while left and len(seen) < _MAX_DIRECTORIES and cost < _MAX_VALUES:
            offset = left.pop()
            if offset in seen:
                continue
            seen.add(offset)
            directory = _Directory(file, layout, offset)
            cost += directory.cost
            left += [place for place in directory.others if place]
        return "plausible"


class _Directory:
    """A directory, which describes a page.

    Raises:
        CutError: Something that it points to lies behind the end of the file.
    """

    def __init__(self, file: Reader, layout: _Layout, offset: int) -> None:
        self._file, self._layout = file, layout
        count = _number(file, layout, offset, layout.length)
        entry_bytes = 4 + 2 * layout.word_bytes
        start = offset + struct.calcsize(f"<{layout.length}")
        if not file.holds(start, count * entry_bytes + layout.word_bytes):
            raise CutError("one of its directories")
        self.others = [_number(file, layout, start + count * entry_bytes, layout.word)]
        """Where other directories are."""
        self._entries: dict[int, tuple[int, int, int]] = {}
        """The type, the number and the place of the values of each tag."""
        count = min(count, _MAX_ENTRIES)
        self.cost = _ENTRY_COST * (1 + count)
        """What reading it cost, in values of an array."""
        for place in range(start, start + count * entry_bytes, entry_bytes):
            self._enter(place)
        if _SUB_DIRECTORIES in self._entries:
            self.others += map(int, self._array(_SUB_DIRECTORIES))
        for offsets, lengths in _PIXELS.items():
            if offsets in self._entries and lengths in self._entries:
                self._check_pixels(self._array(offsets), self._array(lengths))

    def _enter(self, place: int) -> None:
        """Read the entry at *place*."""
        layout = self._layout
        form = f"{layout.order}HH{layout.word}"
        head = self._file.need(4 + layout.word_bytes, place, "one of its directories")
        tag, kind, count = struct.unpack(form, head)
        length = count * layout.types.get(kind, 0)
        value = place + len(head)
        if length > layout.word_bytes:
            value = _number(self._file, layout, value, layout.word)
            if not self._file.holds(value, length):
                raise CutError(f"the value of its tag {tag}")
        self._entries[tag] = kind, count, value

    def _array(self, tag: int) -> NDArray[np.uint64]:
        """Return the integers of *tag*, or none if it has other values or too many."""
        kind, count, place = self._entries[tag]
        if kind not in _INTEGERS or count > _MAX_VALUES:
            return np.empty(0, np.uint64)
        self.cost += count
        dtype = np.dtype(self._layout.order + _INTEGERS[kind])
        data = self._file.need(count * dtype.itemsize, place, f"the value of its tag {tag}")
        return np.frombuffer(data, dtype).astype(np.uint64)

    def _check_pixels(self, offsets: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> None:
        count = min(offsets.size, lengths.size)
        if not count:
            return
        offsets, lengths = offsets[:count], lengths[:count]
        size = np.uint64(self._file.size)
        if np.any(offsets > size) or np.any(lengths > size - np.minimum(offsets, size)):
            raise CutError("one of its strips or tiles")
        if not np.any(lengths) or not np.any(offsets):
            # A program that writes the directory first fills these in last.
            raise CutError("a page whose pixels have no place yet")


def _number(file: Reader, layout: _Layout, offset: int, form: str) -> int:
    """Return the number at *offset*. Raises CutError."""
    data = file.need(struct.calcsize(layout.order + form), offset, "one of its directories")
    number: int = struct.unpack(layout.order + form, data)[0]
    return number
