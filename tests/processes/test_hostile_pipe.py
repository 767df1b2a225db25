"""A real Julia worker that is sent what no daemon sends."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fluxdrop.processes.wire import FrameKind, Pipe, unpack_facts
from fluxdrop.provision import julia_command
from fluxdrop.resources import julia_folder
from support.daemons import PATIENCE
from support.needs import JULIA, needs_julia

pytestmark = [needs_julia, pytest.mark.slow]


def header(
    magic: bytes = b"FXDP", version: int = 1, kind: int = FrameKind.PING, length: int = 0
) -> bytes:
    """The header of a frame with request id 7."""
    return struct.pack("<4sHHQQ", magic, version, kind, 7, length)


@contextmanager
def worker() -> Iterator[tuple[subprocess.Popen[bytes], Pipe, int]]:
    """A worker that has said HELLO, the pipe that hears it, and the descriptor that it hears."""
    assert JULIA is not None
    command, environment = julia_command(JULIA)
    child_in, our_out = os.pipe()
    our_in, child_out = os.pipe()
    ends = ["--in", str(child_in), "--out", str(child_out)]
    process = subprocess.Popen(
        [*command, str(julia_folder() / "worker.jl"), *ends, "--backend", "plain"],
        env=environment,
        stdin=subprocess.DEVNULL,
        pass_fds=(child_in, child_out),
    )
    os.close(child_in)
    os.close(child_out)
    try:
        with closing(Pipe(our_in, os.open(os.devnull, os.O_WRONLY))) as pipe:
            assert FrameKind.HELLO == pipe.receive(timeout=PATIENCE).kind
            yield process, pipe, our_out
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (header(magic=b"HTTP"), "does not begin with FXDP"),
        (header(version=2), "of version 2"),
        (random.Random(2026).randbytes(4096), "does not begin with FXDP"),
    ],
    ids=["magic", "version", "rubbish"],
)
def test_no_protocol(stream: bytes, reason: str) -> None:
    """A worker answers what is not the protocol with the reason, and ends with 1, although the pipe
    stays open."""
    with worker() as (process, pipe, fd):
        os.write(fd, stream)
        frame = pipe.receive(timeout=PATIENCE)
        code = process.wait(PATIENCE)
        os.close(fd)

    facts = unpack_facts(frame.payload)
    assert (FrameKind.FAILURE, "protocol", 1) == (frame.kind, facts["kind"], code)
    assert reason in facts["message"]


def test_length_that_lies() -> None:
    """A worker that is promised 1 GB and sent 3 MB takes memory for what came, and ends with 0 when
    the pipe ends within the frame."""

    def megabytes(process: subprocess.Popen[bytes], what: str) -> int:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.partition(f"{what}:")[2].split()[0]) // 1024

    with worker() as (process, pipe, fd):
        os.write(fd, header(length=3))
        os.write(fd, b"abc")
        assert FrameKind.PONG == pipe.receive(timeout=PATIENCE).kind
        before = megabytes(process, "VmSize")
        sent = header(length=1 << 30) + bytes(3 << 20)
        while sent:
            sent = sent[os.write(fd, sent) :]
        # All but the little that a pipe holds was read.
        growth = megabytes(process, "VmSize") - before
        os.close(fd)
        code = process.wait(PATIENCE)

    assert 0 == code
    assert growth < 100
