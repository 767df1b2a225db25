"""Frames on a pipe, by which the daemon and its child processes exchange messages.

``docs/protocol.md`` is the specification; the Julia side is ``julia/src/wire.jl``.
"""

from __future__ import annotations

import math
import os
import select
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FRAME_MAGIC = b"FXDP"
PROTOCOL_VERSION = 1
MAX_PAYLOAD = 1 << 30
"""The most bytes of a frame's payload."""
MAX_DIMENSIONS = 8
"""The most dimensions of a tensor."""
FLOAT32 = 1
"""The element type of tensors."""
# The default capacity of a pipe on Linux (pipe(7)): one read takes all that is there. Memory for a payload
# is allocated in pieces of this size as they arrive, so a false length costs no memory.
_PIECE_BYTES = 1 << 16
# Few, because the other side cannot read a piece before the write that contains it has ended.
_PIECES_PER_WRITE = 3

_HEADER = struct.Struct("<4sHHQQ")
_TENSOR_HEAD = struct.Struct("<BBH")


class FrameKind(IntEnum):
    """The kinds of frames.

    The Julia worker has 1 to 11; the generator has 1 to 3, 6 to 9, and 20 to 22; the broker of a cluster has 1, 6, 9,
    21, and 40 and up.
    """

    HELLO = 1
    LOAD = 2
    LOADED = 3
    PREDICT = 4
    PREDICTION = 5
    FAILURE = 6
    PING = 7
    PONG = 8
    STOP = 9
    LOAD_NATIVE = 10
    PREDICT_SHARED = 11
    GENERATE = 20
    PROGRESS = 21
    IMAGE = 22
    JOIN = 40
    CLUSTER = 41
    RUN = 42
    SENT = 43
    CANCEL = 44
    OUTCOME = 45


_KINDS = {int(kind): kind for kind in FrameKind}


class WireError(Exception):
    """The other side broke the protocol: bad magic, version, kind or length, or a torn frame."""


class PipeClosed(WireError):
    """The pipe is closed, usually because the other side ended."""


class DeadlineExceeded(WireError):
    """The other side did not answer in time."""


class Frame(NamedTuple):
    """One message."""

    kind: FrameKind
    request: int
    """The number of the request that this is, or that it answers; 0 for none."""
    payload: bytes | bytearray


class Pipe:
    """Frames over two descriptors, one to read and one to write, which this object owns and closes.

    The methods take a *wait_hook*, which is called every `wait_slice` seconds while they wait. What it
    raises ends the wait: so a request to stop reaches a caller in the middle of a call.
    """

    wait_slice = 0.25
    """Seconds between two calls of a *wait_hook*."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)
        self._readable = _poll(read_fd, select.POLLIN)
        self._writable = _poll(write_fd, select.POLLOUT)
        # Bytes that were read and not yet returned. Mostly one read gets both header and payload.
        self._buffer = bytearray()

    def send(
        self,
        kind: FrameKind,
        request: int,
        *parts: bytes | memoryview,
        timeout: float | None = None,
        wait_hook: Callable[[], None] | None = None,
    ) -> None:
        """Write one frame.

        Args:
            kind: The frame's kind.
            request: The number of the request.
            *parts: The payload, in parts that are written one after the other.
            timeout: Seconds until the frame has to be written; None for no limit.
            wait_hook: Called while this waits.

        Raises:
            PipeClosed: The other side is gone, or this side is closed.
            DeadlineExceeded: The other side did not read the frame in time.
            WireError: The payload is too large.
        """
        length = sum(map(len, parts))
        if length > MAX_PAYLOAD:
            raise WireError(f"a payload of {length} bytes is over the limit of {MAX_PAYLOAD}")
        self._check_open()
        deadline = _deadline(timeout)
        pending = [_HEADER.pack(FRAME_MAGIC, PROTOCOL_VERSION, kind, request, length), *parts]
        if length > _PIECE_BYTES:
            pending = [piece for part in pending for piece in _pieces(part)]
        left = _HEADER.size + length
        while left:
            try:
                written = os.writev(self._write_fd, pending[:_PIECES_PER_WRITE])
            except BlockingIOError:
                self._wait_for(self._writable, deadline, wait_hook)
                continue
            except BrokenPipeError as error:
                raise PipeClosed("the pipe is closed") from error
            left -= written
            while left and written >= len(pending[0]):
                written -= len(pending.pop(0))
            if left and written:
                pending[0] = memoryview(pending[0])[written:]

    def receive(
        self, *, timeout: float | None = None, wait_hook: Callable[[], None] | None = None
    ) -> Frame:
        """Read one frame.

        Args:
            timeout: Seconds until the frame has to be read; None for no limit.
            wait_hook: Called while this waits.

        Raises:
            PipeClosed: The pipe is at its end, or this side is closed.
            DeadlineExceeded: The frame was not complete in time.
            WireError: The bytes are not a frame of this protocol.
        """
        self._check_open()
        deadline = _deadline(timeout)
        self._fill(_HEADER.size, deadline, wait_hook)
        magic, version, kind, request, length = _HEADER.unpack_from(self._buffer)
        if magic != FRAME_MAGIC:
            raise WireError(f"a frame begins with {magic!r}, not {FRAME_MAGIC!r}")
        if version != PROTOCOL_VERSION:
            raise WireError(f"a frame has protocol version {version}, not {PROTOCOL_VERSION}")
        if length > MAX_PAYLOAD:
            raise WireError(f"a frame announces {length} bytes, over the limit of {MAX_PAYLOAD}")
        known = _KINDS.get(kind)
        if known is None:
            raise WireError(f"a frame has the unknown kind {kind}")
        self._fill(_HEADER.size + length, deadline, wait_hook)
        del self._buffer[: _HEADER.size]
        payload, self._buffer = self._buffer, self._buffer[length:]
        del payload[length:]
        return Frame(known, request, payload)

    @property
    def has_bytes(self) -> bool:
        """Whether bytes of a frame were read that `receive` has not returned."""
        return bool(self._buffer)

    def fileno(self) -> int:
        """Return the descriptor that frames are read from."""
        return self._read_fd

    def close(self) -> None:
        """Close both descriptors. A second call does nothing."""
        for fd in {self._read_fd, self._write_fd} - {-1}:
            os.close(fd)
        self._read_fd = self._write_fd = -1

    def _check_open(self) -> None:
        if self._read_fd < 0:
            raise PipeClosed("the pipe was closed on this side")

    def _fill(
        self, size: int, deadline: float | None, wait_hook: Callable[[], None] | None
    ) -> None:
        """Read until the buffer holds *size* bytes."""
        while len(self._buffer) < size:
            self._wait_for(self._readable, deadline, wait_hook)
            try:
                piece = os.read(self._read_fd, _PIECE_BYTES)
            except BlockingIOError:
                continue
            if not piece:
                state = "was closed in the middle of a frame" if self._buffer else "is closed"
                raise PipeClosed(f"the pipe {state}")
            self._buffer += piece

    def _wait_for(
        self,
        poll: select.poll,
        deadline: float | None,
        wait_hook: Callable[[], None] | None,
    ) -> None:
        while True:
            wait = self.wait_slice if wait_hook else None
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise DeadlineExceeded("no answer in time")
                wait = left if wait is None else min(wait, left)
            if poll.poll(None if wait is None else wait * 1000):
                return
            if wait_hook:
                wait_hook()


def readable(pipes: Sequence[Pipe], timeout: float | None = None) -> list[Pipe]:
    """Return those of *pipes* that a frame, or the end, begins to arrive on.

    Args:
        pipes: At least one.
        timeout: Seconds to wait for the first of them; None for no limit.
    """
    ready = [pipe for pipe in pipes if pipe.has_bytes]
    poll = select.poll()
    for pipe in pipes:
        poll.register(pipe, select.POLLIN)
    wait = 0 if ready else None if timeout is None else max(0, timeout) * 1000
    found = {fd for fd, _event in poll.poll(wait)}
    return [pipe for pipe in pipes if pipe.has_bytes or pipe.fileno() in found]


def pack_facts(facts: Mapping[str, object]) -> bytes:
    """Encode *facts* as lines ``key=value``; escape backslashes and line feeds in the values."""
    lines = []
    for key, value in facts.items():
        text = str(value).replace("\\", "\\\\").replace("\n", "\\n")
        lines.append(f"{key}={text}\n")
    # A message can quote a file name that is not UTF-8.
    return "".join(lines).encode(errors="replace")


def unpack_facts(payload: bytes | bytearray) -> dict[str, str]:
    """Decode what `pack_facts` encodes.

    Raises:
        WireError: A line has no ``=``, or the bytes are not UTF-8.
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise WireError("facts are not UTF-8") from error
    facts = {}
    for line in text.split("\n"):
        if not line:
            continue
        key, separator, value = line.partition("=")
        if not separator:
            raise WireError(f"the fact {line!r} has no value")
        facts[key] = _unescape(value)
    return facts


def _pieces(part: bytes | memoryview) -> Iterator[memoryview]:
    view = memoryview(part)
    for start in range(0, len(view), _PIECE_BYTES):
        yield view[start : start + _PIECE_BYTES]


@cache
def _tensor_head(dimensions: int) -> struct.Struct:
    return struct.Struct(f"{_TENSOR_HEAD.format}{dimensions}I")


def pack_head(array: NDArray[np.float32]) -> bytes:
    """Return the head of *array* as a tensor: the bytes before its elements."""
    return _tensor_head(array.ndim).pack(FLOAT32, array.ndim, 0, *array.shape)


def pack_tensor(array: NDArray[np.float32]) -> tuple[bytes, memoryview]:
    """Encode *array*, of up to 8 dimensions, as head and elements.

    An array that is float32 and row-major is not copied.
    """
    import numpy as np

    array = np.asarray(array, dtype="<f4", order="C")
    # An empty memoryview cannot be cast.
    return pack_head(array), array.data.cast("B") if array.size else memoryview(b"")


def unpack_tensor(payload: bytes | bytearray) -> NDArray[Any]:
    """Decode a tensor as a float32 array that shares *payload*'s memory.

    Raises:
        WireError: *payload* is not a tensor.
    """
    import numpy as np

    if len(payload) < _TENSOR_HEAD.size:
        raise WireError("a tensor is shorter than its head")
    dtype, ndim, _ = _TENSOR_HEAD.unpack_from(payload)
    if dtype != FLOAT32 or ndim > MAX_DIMENSIONS:
        raise WireError(f"a tensor has element type {dtype} and {ndim} dimensions")
    head = _tensor_head(ndim)
    start = head.size
    if len(payload) < start:
        raise WireError("a tensor is shorter than its head")
    shape = head.unpack_from(payload)[3:]
    expected = 4 * math.prod(shape)
    if len(payload) - start != expected:
        raise WireError(
            f"a tensor of shape {shape} has {len(payload) - start} bytes, not {expected}"
        )
    try:
        return np.frombuffer(payload, dtype="<f4", offset=start).reshape(shape)
    except ValueError as error:
        raise WireError(f"there is no array of shape {shape}") from error


def _unescape(value: str) -> str:
    if "\\" not in value:
        return value
    parts = value.split("\\\\")
    return "\\".join(part.replace("\\n", "\n") for part in parts)


def _poll(fd: int, event: int) -> select.poll:
    poll = select.poll()
    poll.register(fd, event)
    return poll


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout
