"""Frames, facts and tensors over real pipes."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from fluxdrop.processes import wire
from fluxdrop.processes.wire import DeadlineExceeded, Frame, FrameKind, Pipe, PipeClosed, WireError

SMALL_BUFFER = 4096
KINDS = st.sampled_from(FrameKind)
REQUESTS = st.integers(0, 2**64 - 1)


def header(
    magic: bytes = b"FXDP", version: int = 1, kind: int = FrameKind.PING, length: int = 0
) -> bytes:
    """The header of a frame with request id 7."""
    return struct.pack("<4sHHQQ", magic, version, kind, 7, length)


@contextmanager
def a_pipe() -> Iterator[tuple[Pipe, int]]:
    """A Pipe that hears what is written to the descriptor it comes with; what it sends is lost."""
    read_fd, write_fd = os.pipe()
    with closing(Pipe(read_fd, os.open(os.devnull, os.O_WRONLY))) as pipe:
        try:
            yield pipe, write_fd
        finally:
            os.close(write_fd)


@contextmanager
def two_ends() -> Iterator[tuple[Pipe, Pipe]]:
    """Two Pipes that hear each other, with the smallest buffers that Linux gives."""
    here_in, there_out = os.pipe()
    there_in, here_out = os.pipe()
    for fd in (there_out, here_out):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, SMALL_BUFFER)
    with closing(Pipe(here_in, here_out)) as here, closing(Pipe(there_in, there_out)) as there:
        yield here, there


def received(data: bytes) -> Frame:
    """What a Pipe makes of *data* and the end of file behind it."""
    read_fd, write_fd = os.pipe()
    os.write(write_fd, data)
    os.close(write_fd)
    with closing(Pipe(read_fd, os.open(os.devnull, os.O_WRONLY))) as pipe:
        return pipe.receive(timeout=5)


@given(kind=KINDS, request=REQUESTS, parts=st.lists(st.binary(max_size=600), max_size=4))
def test_round_trip(kind: FrameKind, request: int, parts: list[bytes]) -> None:
    """A frame of any kind, id and payload arrives as it was sent, its parts in a row."""
    with two_ends() as (here, there):
        here.send(kind, request, *parts, timeout=5)
        frame = there.receive(timeout=5)

    assert (kind, request, b"".join(parts)) == (frame.kind, frame.request, frame.payload)


@given(data=st.data(), payloads=st.lists(st.binary(max_size=100), min_size=1, max_size=3))
def test_any_split(data: st.DataObject, payloads: list[bytes]) -> None:
    """Frames do not depend on how their bytes are spread over writes."""
    stream = b"".join(header(length=len(payload)) + payload for payload in payloads)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    with a_pipe() as (pipe, write_fd):

        def write() -> None:
            for piece in pieces:
                os.write(write_fd, piece)

        writer = threading.Thread(target=write)
        writer.start()
        frames = [pipe.receive(timeout=5) for _ in payloads]
        writer.join()

    assert payloads == [frame.payload for frame in frames]


def test_large_both_ways() -> None:
    """A payload of several megabytes passes, and is answered, although the buffers hold 4 KB."""
    payload = np.random.default_rng(0).bytes(5_000_000)
    with two_ends() as (here, there):

        def echo() -> None:
            frame = there.receive(timeout=30)
            there.send(FrameKind.PONG, frame.request, bytes(frame.payload), timeout=30)

        other = threading.Thread(target=echo)
        other.start()
        here.send(FrameKind.PING, 3, payload, timeout=30)
        frame = here.receive(timeout=30)
        other.join()

    assert (FrameKind.PONG, 3) == (frame.kind, frame.request)
    assert payload == frame.payload


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(magic=b"HTTP"), "begins with b'HTTP'"),
        (header(version=2), "protocol version 2"),
        (header(kind=99), "unknown kind 99"),
        (header(length=2**30 + 1), "announces 1073741825 bytes"),
        (b"Segmentation fault, said the library", "begins with b'Segm'"),
        (header()[:23], "closed in the middle of a frame"),
        (header(length=4) + b"abc", "closed in the middle of a frame"),
    ],
)
def test_refused(data: bytes, message: str) -> None:
    """What is not a whole frame of this protocol is an error that says what is wrong with it."""
    with pytest.raises(WireError, match=message):
        received(data)


FRAMES = st.builds(
    lambda kind, payload: header(kind=kind, length=len(payload)) + payload,
    KINDS,
    st.binary(max_size=40),
)
LIES = st.builds(
    lambda magic, version, kind, length, rest: header(magic, version, kind, length) + rest,
    st.just(b"FXDP") | st.binary(min_size=4, max_size=4),
    st.just(1) | st.integers(0, 2**16 - 1),
    KINDS | st.integers(0, 2**16 - 1),
    st.sampled_from([0, 1, 2**20, 2**30, 2**30 + 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1),
    st.binary(max_size=40),
)
STREAMS = st.lists(FRAMES | LIES | st.binary(max_size=60), max_size=4).map(b"".join)


@given(stream=STREAMS, cut=st.integers(0, 200))
def test_any_stream(stream: bytes, cut: int) -> None:
    """Of any bytes, cut anywhere, exactly the whole frames at their beginning are received, and then
    an error tells why there are no more; no length is believed further than what came of it.
    """
    stream = stream[: max(0, len(stream) - cut)]
    read_fd, write_fd = os.pipe()
    os.write(write_fd, stream)
    os.close(write_fd)
    again = b""
    tracemalloc.start()
    with closing(Pipe(read_fd, os.open(os.devnull, os.O_WRONLY))) as pipe:
        with pytest.raises(WireError) as caught:  # noqa: PT012 - the last of them raises
            while True:
                frame = pipe.receive(timeout=5)
                head = struct.pack(
                    "<4sHHQQ", b"FXDP", 1, frame.kind, frame.request, len(frame.payload)
                )
                again += head + frame.payload
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    rest = stream[len(again) :]

    assert str(caught.value)
    assert stream.startswith(again)
    assert isinstance(caught.value, PipeClosed) is (
        len(rest) < 24 or (is_header(rest[:24]) and len(rest) < 24 + length_of(rest))
    )
    assert peak < 8 << 20


def is_header(data: bytes) -> bool:
    """Whether *data* is a header of the protocol, as docs/protocol.md has it."""
    magic, version, kind, _, length = struct.unpack("<4sHHQQ", data)
    return magic == b"FXDP" and version == 1 and kind in set(FrameKind) and length <= 2**30


def length_of(data: bytes) -> int:
    """What the header at the beginning of *data* announces."""
    return int.from_bytes(data[16:24], "little")


def test_oversized_payload_is_not_sent() -> None:
    """A payload over the limit is refused before any of it is written."""
    quarter = bytes(wire.MAX_PAYLOAD // 4)
    with two_ends() as (here, there):
        with pytest.raises(WireError, match="over the limit"):
            here.send(FrameKind.PING, 1, quarter, quarter, quarter, quarter, b"x")
        here.close()

        with pytest.raises(PipeClosed, match="the pipe is closed"):
            there.receive(timeout=5)


def test_end_of_file() -> None:
    """The end of the stream between two frames is PipeClosed."""
    with pytest.raises(PipeClosed, match="the pipe is closed"):
        received(b"")


def test_nobody_reads() -> None:
    """Sending to an end that is gone is PipeClosed."""
    with two_ends() as (here, there):
        there.close()

        with pytest.raises(PipeClosed, match="the pipe is closed"):
            here.send(FrameKind.PING, 1, timeout=5)


@pytest.mark.parametrize(
    "act", [lambda p: p.send(FrameKind.STOP, 0), lambda p: p.receive(timeout=5)]
)
def test_closed_on_this_side(act: Callable[[Pipe], object]) -> None:
    """A pipe that was closed, even twice, says so, and touches no descriptor that is somebody
    else's by now.
    """
    with a_pipe() as (pipe, _):
        pipe.close()
        pipe.close()

        with pytest.raises(PipeClosed, match="on this side"):
            act(pipe)


@pytest.mark.parametrize("begun", [b"", header()[:5], header(length=9) + b"half"])
def test_receive_deadline(begun: bytes) -> None:
    """An answer that does not come whole in time is DeadlineExceeded."""
    with a_pipe() as (pipe, write_fd):
        os.write(write_fd, begun)

        with pytest.raises(DeadlineExceeded):
            pipe.receive(timeout=0.02)


def test_send_deadline() -> None:
    """An end that takes no more is DeadlineExceeded."""
    with two_ends() as (here, _there), pytest.raises(DeadlineExceeded):
        here.send(FrameKind.PING, 1, bytes(SMALL_BUFFER * 20), timeout=0.02)


@pytest.mark.parametrize(
    "act",
    [
        lambda pipe, hook: pipe.send(FrameKind.PING, 1, bytes(SMALL_BUFFER * 20), wait_hook=hook),
        lambda pipe, hook: pipe.receive(wait_hook=hook),
    ],
    ids=["send", "receive"],
)
def test_wait_hook(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[Pipe, Callable[[], None]], object]
) -> None:
    """The hook is called again and again while the other side is awaited; what it raises ends the
    wait.
    """
    monkeypatch.setattr(Pipe, "wait_slice", 0.001)
    calls = []

    def hook() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with two_ends() as (here, _there), pytest.raises(KeyboardInterrupt):
        act(here, hook)

    assert 3 == len(calls)


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="=\n"), min_size=1)
VALUES = st.text(st.characters(codec="utf-8"))


@given(facts=st.dictionaries(KEYS, VALUES))
def test_facts_round_trip(facts: dict[str, str]) -> None:
    """Facts survive whatever their values hold: line feeds, backslashes, equals signs."""
    assert facts == wire.unpack_facts(wire.pack_facts(facts))


def test_facts_of_other_types() -> None:
    """Values are what `str` makes of them; bytes of a name that are not UTF-8 become question
    marks.
    """
    packed = wire.pack_facts({"pid": 12, "flux": None, "message": os.fsdecode(b"a\xff.png")})

    assert {"pid": "12", "flux": "None", "message": "a?.png"} == wire.unpack_facts(packed)


@pytest.mark.parametrize("payload", [b"pid\n", b"pid=1\nno value here", b"name=\xff\n"])
def test_facts_refused(payload: bytes) -> None:
    """A line without a value and bytes that are not UTF-8 are no facts."""
    with pytest.raises(WireError):
        wire.unpack_facts(payload)


@given(
    array=st_numpy.arrays(
        np.dtype("<f4"), st_numpy.array_shapes(min_dims=0, max_dims=8, min_side=0, max_side=3)
    )
)
def test_tensor_round_trip(array: np.ndarray) -> None:
    """A tensor of any shape arrives with its shape and its bits, infinities and NaNs included."""
    got = wire.unpack_tensor(b"".join(wire.pack_tensor(array)))

    assert (array.shape, array.tobytes()) == (got.shape, got.tobytes())


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4).T,
        np.arange(12, dtype=np.float32)[::-2],
        np.arange(12, dtype=">f4"),
        np.arange(12, dtype=np.float64),
    ],
    ids=["transposed", "strided", "big-endian", "double"],
)
def test_tensor_layouts(array: np.ndarray) -> None:
    """However an array lies in memory, its elements are sent row by row as float32."""
    got = wire.unpack_tensor(b"".join(wire.pack_tensor(array)))

    assert array.tolist() == got.tolist()


def test_tensor_is_not_copied() -> None:
    """Neither packing nor unpacking copies the elements."""
    array = np.zeros((2, 3), dtype=np.float32)
    _head, elements = wire.pack_tensor(array)
    payload = bytearray(b"".join(wire.pack_tensor(array)))

    assert np.shares_memory(array, np.frombuffer(elements, np.uint8))
    assert np.shares_memory(wire.unpack_tensor(payload), np.frombuffer(payload, np.uint8))


def tensor(dtype: int, shape: list[int], elements: bytes) -> bytes:
    """A tensor's payload that says what it is told to."""
    return struct.pack(f"<BBH{len(shape)}I", dtype, len(shape), 0, *shape) + elements


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x01\x02",
        tensor(2, [1], bytes(4)),
        tensor(1, [1] * 9, bytes(4)),
        tensor(1, [2, 3], b"")[:-1],
        tensor(1, [2], bytes(7)),
        tensor(1, [2], bytes(9)),
        tensor(1, [2**32 - 1] * 8, bytes(4)),
        tensor(1, [0, *[2**32 - 1] * 4], b""),
    ],
    ids=[
        "empty",
        "no-head",
        "type",
        "dimensions",
        "no-shape",
        "short",
        "long",
        "huge",
        "empty-huge",
    ],
)
def test_tensor_refused(payload: bytes) -> None:
    """A payload that is no tensor is a WireError, never an array of something else."""
    with pytest.raises(WireError):
        wire.unpack_tensor(payload)


@given(payload=st.binary(max_size=64))
def test_tensor_of_rubbish(payload: bytes) -> None:
    """Any bytes are either exactly one tensor or a WireError."""
    try:
        array = wire.unpack_tensor(payload)
    except WireError:
        return

    assert (
        payload[:2] + payload[4:]
        == b"".join(
            [struct.pack("<BB", 1, array.ndim), *(struct.pack("<I", n) for n in array.shape)]
        )
        + array.tobytes()
    )
