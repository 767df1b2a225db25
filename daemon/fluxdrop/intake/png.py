"""Check whether a PNG file is complete, without decoding it.

Its chunks are followed to IEND and their checksums verified. Format: PNG Specification, third
edition, section 5 (https://www.w3.org/TR/png-3/#5DataRep).
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_READ_BYTES = 1 << 20
_READ_AHEAD_BYTES = 1 << 16
_CHUNK_OVERHEAD_BYTES = 12
# A chunk may be as small as twelve bytes, and costs every reader far more memory and time than that.
# Real files have a few dozen besides those of their pixels.
_MAX_OTHER_CHUNKS = 10_000
_PIXEL_CHUNKS = frozenset({b"IDAT", b"fdAT", b"fcTL"})

State = Literal["complete", "incomplete", "damaged"]


@dataclass(slots=True)
class PngScanner:
    """Scans one growing PNG file; each scan continues where the last one ended."""

    _offset: int = len(SIGNATURE)
    _other_chunks: int = 0
    reason: str = "nothing has been read yet"
    """What the last scan found to be missing or wrong."""

    def scan(self, fd: int) -> State:
        """Continue the scan of the file open as *fd*; return its state and set `reason`.

        A file that took several scans is scanned once more from its beginning before it counts as
        complete or damaged, as it may have been rewritten in between.
        """
        resumed = self._offset > len(SIGNATURE)
        state = self._walk(fd)
        if state != "incomplete" and resumed:
            self._reset()
            state = self._walk(fd)
        if state != "incomplete":
            # The scan is at its end, and the file may be scanned again before it is claimed.
            self._reset()
        return state

    def _reset(self) -> None:
        self._offset = len(SIGNATURE)
        self._other_chunks = 0

    def _walk(self, fd: int) -> State:
        size = os.fstat(fd).st_size
        file = _ReadAhead(fd)
        if size < self._offset:
            self._reset()
        while True:
            head = file.read(8, self._offset)
            if len(head) < 8:
                self.reason = f"it ends after {size} bytes, before its IEND chunk"
                return "incomplete"
            length, kind = struct.unpack(">I4s", head)
            if not kind.isalpha():
                self.reason = f"there is no chunk at byte {self._offset}"
                return "damaged"
            if self._offset + _CHUNK_OVERHEAD_BYTES + length > size:
                self.reason = f"its {kind.decode()} chunk is cut off at byte {size}"
                return "incomplete"
            if not self._checksum_holds(file, kind, length):
                self.reason = f"the checksum of its {kind.decode()} chunk is wrong"
                return "damaged"
            self._offset += _CHUNK_OVERHEAD_BYTES + length
            if kind == b"IEND":
                return "complete"
            self._other_chunks += kind not in _PIXEL_CHUNKS
            if self._other_chunks > _MAX_OTHER_CHUNKS:
                self.reason = f"it has more than {_MAX_OTHER_CHUNKS:,} chunks beside its pixels"
                return "damaged"

    def _checksum_holds(self, file: _ReadAhead, kind: bytes, length: int) -> bool:
        crc = zlib.crc32(kind)
        start = self._offset + 8
        done = 0
        while done < length:
            piece = file.read(min(_READ_BYTES, length - done), start + done)
            if not piece:
                return False
            crc = zlib.crc32(piece, crc)
            done += len(piece)
        return file.read(4, start + length) == crc.to_bytes(4, "big")


class _ReadAhead:
    """Reads a file at any offset, and a small file with a single call."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._start = 0
        self._data = b""

    def read(self, count: int, offset: int) -> bytes:
        """Return *count* bytes from *offset*, or fewer at the end of the file."""
        begin = offset - self._start
        if begin < 0 or begin + count > len(self._data):
            self._data = os.pread(self._fd, max(count, _READ_AHEAD_BYTES), offset)
            self._start = offset
            begin = 0
        return self._data[begin : begin + count]
