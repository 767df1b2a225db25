"""What all checks for whole files share: how they are asked, what they answer, how they read."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Literal

State = Literal["complete", "plausible", "unended", "incomplete", "damaged"]
"""What a file is by its structure.

``complete``: its end was reached. ``plausible``: nothing is missing, but its format does not say that nothing follows,
or the bytes that it names may not be written yet, only reserved. ``unended``: only the mark of its end is missing, if
all its pixels are there. ``incomplete``: something is missing. ``damaged``: it cannot become whole by growing.
"""

_READ_AHEAD_BYTES = 1 << 16


class CutError(Exception):
    """What has to be read lies behind the end of the file. The message says what, as the beginning of a sentence."""


class Reader:
    """Reads a file at any offset, and a small file with a single call."""

    def __init__(self, fd: int) -> None:
        """Read the file open as *fd*."""
        self.fd = fd
        self._start = 0
        self._data = b""
        self.size = os.fstat(fd).st_size
        """The size of the file, in bytes."""

    def read(self, count: int, offset: int) -> bytes:
        """Return *count* bytes from *offset*, or fewer at the end of the file."""
        count = min(count, self.size - offset)
        if count <= 0:
            return b""
        begin = offset - self._start
        if begin < 0 or begin + count > len(self._data):
            self._data = os.pread(self.fd, max(count, _READ_AHEAD_BYTES), offset)
            self._start = offset
            begin = 0
        return self._data[begin : begin + count]

    def need(self, count: int, offset: int, what: str) -> bytes:
        """Return *count* bytes from *offset*, which are *what*. Raises CutError at the end of the file."""
        data = self.read(count, offset)
        if len(data) < count:
            raise CutError(what)
        return data

    def holds(self, start: int, length: int) -> bool:
        """Return whether *length* bytes from *start* lie within the file."""
        return start + length <= self.size


class Scanner(ABC):
    """Scans one growing file without decoding it; each scan may continue where the last one ended.

    The cost of a scan is bounded by the file's size or less, whatever is in it.
    """

    _start = 0
    """Where the first scan begins."""

    def __init__(self) -> None:
        """Begin at the start of the file."""
        self.reason = "nothing has been read yet"
        """What the last scan found to be missing or wrong."""
        self._offset = self._start
        """Where the next scan continues."""
        self._reset()

    def scan(self, fd: int) -> State:
        """Continue the scan of the file open as *fd*; return its state and set `reason`.

        A file that took several scans is scanned once more from its beginning before it counts as anything but
        incomplete, as it may have been rewritten in between.
        """
        file = Reader(fd)
        if file.size < self._offset:
            self._reset()
        resumed = self._offset > self._start
        state = self._try_walk(file)
        if state != "incomplete" and resumed:
            self._reset()
            state = self._try_walk(Reader(fd))
        if state != "incomplete":
            # The scan is at its end, and the file may be scanned again before it is claimed.
            self._reset()
        return state

    def _reset(self) -> None:
        """Begin again at the start of the file."""
        self._offset = self._start

    @abstractmethod
    def _walk(self, file: Reader) -> State:
        """Scan *file* from `_offset` on; set `reason`, and `_offset` to where the next scan may continue.

        Raises:
            CutError: The file is incomplete.
        """

    def _try_walk(self, file: Reader) -> State:
        try:
            return self._walk(file)
        except CutError as error:
            self.reason = f"{error} is cut off at byte {file.size}"
            return "incomplete"
