"""Check whether a PNG file is complete, without decoding it.

Its chunks are followed to IEND and their checksums verified. Format: PNG Specification, third
edition, section 5 (https://www.w3.org/TR/png-3/#5DataRep).
"""

from __future__ import annotations

import struct
import zlib

from fluxdrop.intake.whole.scanner import CutError, Reader, Scanner, State

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_READ_BYTES = 1 << 20
_CHUNK_OVERHEAD_BYTES = 12
# A chunk may be as small as twelve bytes, and costs every reader far more memory and time than that.
# Real files have a few dozen besides those of their pixels.
_MAX_OTHER_CHUNKS = 10_000
_PIXEL_CHUNKS = frozenset({b"IDAT", b"fdAT", b"fcTL"})


class PngScanner(Scanner):
    """Scans one growing PNG file."""

    _start = len(SIGNATURE)

    def _reset(self) -> None:
        super()._reset()
        self._other_chunks = 0

    def _walk(self, file: Reader) -> State:
        while True:
            head = file.read(8, self._offset)
            if len(head) < 8:
                self.reason = f"it ends after {file.size} bytes, before its IEND chunk"
                return "incomplete"
            length, kind = struct.unpack(">I4s", head)
            if not kind.isalpha():
                self.reason = f"there is no chunk at byte {self._offset}"
                return "damaged"
            if not file.holds(self._offset, _CHUNK_OVERHEAD_BYTES + length):
                raise CutError(f"its {kind.decode()} chunk")
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

    def _checksum_holds(self, file: Reader, kind: bytes, length: int) -> bool:
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
