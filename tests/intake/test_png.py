"""PNG files that are whole, cut, damaged, and on their way."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fluxdrop.intake.whole.png import SIGNATURE, PngScanner
from support.pictures import chunk


def picture(colour: str, size: int = 40) -> bytes:
    """A PNG with a text, as Pillow writes it."""
    info = PngInfo()
    info.add_text("parameters", "a circle")
    out = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(out, "PNG", pnginfo=info)
    return out.getvalue()


WHOLE = picture("red")


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A file to write into."""
    fd = os.open(tmp_path / "growing.png", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def put(fd: int, data: bytes) -> int:
    """Make *data* the contents of *fd*."""
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)
    return fd


def test_samples(samples: Path) -> None:
    """Every sample picture is complete."""
    files = sorted(samples.glob("*.png"))
    states = []
    for file in files:
        with file.open("rb") as stream:
            states.append(PngScanner().scan(stream.fileno()))

    assert ["complete"] * 12 == states


def test_cut_anywhere(fd: int) -> None:
    """A PNG that is cut at any byte is incomplete, and the reason says where it ends."""
    states = set()
    for size in range(len(SIGNATURE), len(WHOLE)):
        scanner = PngScanner()
        states.add(scanner.scan(put(fd, WHOLE[:size])))
        assert str(size) in scanner.reason

    assert {"incomplete"} == states
    assert "complete" == PngScanner().scan(put(fd, WHOLE))


@pytest.mark.parametrize("step", [1, 7, 64])
def test_grown_piece_by_piece(fd: int, step: int) -> None:
    """One scanner follows a growing file; it is complete with its last byte and not before."""
    scanner = PngScanner()
    states = []
    for size in [*range(len(SIGNATURE), len(WHOLE), step), len(WHOLE)]:
        states.append(scanner.scan(put(fd, WHOLE[:size])))

    assert {"incomplete"} == set(states[:-1])
    assert "complete" == states[-1]


def test_every_damaged_byte(fd: int) -> None:
    """A changed byte anywhere behind the signature keeps a PNG from being complete."""
    states = set()
    for place in range(len(SIGNATURE), len(WHOLE)):
        damaged = bytearray(WHOLE)
        damaged[place] ^= 0x20
        states.add(PngScanner().scan(put(fd, bytes(damaged))))

    assert {"damaged", "incomplete"} == states


@pytest.mark.parametrize(
    ("contents", "state", "reason"),
    [
        (SIGNATURE, "incomplete", "it ends after 8 bytes, before its IEND chunk"),
        (SIGNATURE + chunk(b"IHDR")[:-4] + b"\0" * 4, "damaged", "checksum of its IHDR chunk"),
        (SIGNATURE + chunk(b"IDAT", b"x" * 9)[:-2], "incomplete", "its IDAT chunk is cut off"),
        (SIGNATURE + b"<html>" + b" " * 99, "damaged", "there is no chunk at byte 8"),
        (SIGNATURE + chunk(b"IEND") + b"trailing bytes", "complete", ""),
        (SIGNATURE + chunk(b"IDAT", bytes(3 << 20)) + chunk(b"IEND"), "complete", ""),
        (SIGNATURE + b"\xff\xff\xff\xffIDAT", "incomplete", "its IDAT chunk is cut off"),
        (SIGNATURE + chunk(b"prVt") * 10_001, "damaged", "more than 10,000 chunks beside"),
        (SIGNATURE + chunk(b"IDAT") * 10_001 + chunk(b"IEND"), "complete", ""),
    ],
    ids=["signature", "checksum", "cut", "html", "trailing", "large", "endless", "crumbs", "rows"],
)
def test_reasons(fd: int, contents: bytes, state: str, reason: str) -> None:
    """What is missing or wrong is said."""
    scanner = PngScanner()

    assert state == scanner.scan(put(fd, contents))
    assert reason in scanner.reason


@pytest.mark.parametrize("other", [picture("blue"), picture("blue", 400), picture("blue", 3)])
@pytest.mark.parametrize("seen", [len(WHOLE) - 5, 60])
def test_rewritten_from_scratch(fd: int, other: bytes, seen: int) -> None:
    """A file that is written anew, shorter or longer, is judged by what it is now."""
    scanner = PngScanner()
    first = scanner.scan(put(fd, WHOLE[:seen]))
    second = scanner.scan(put(fd, other))

    assert ("incomplete", "complete") == (first, second)


@pytest.mark.parametrize(
    ("contents", "state"),
    [(WHOLE, "complete"), (WHOLE[:-5], "incomplete"), (WHOLE[:-1] + b"\0", "damaged")],
    ids=["complete", "incomplete", "damaged"],
)
def test_looked_at_again(fd: int, contents: bytes, state: str) -> None:
    """However often a file is looked at, the verdict on it is the same."""
    scanner = PngScanner()
    put(fd, contents)

    assert [state] * 3 == [scanner.scan(fd) for _ in range(3)]


def test_chunks_are_counted_once(fd: int) -> None:
    """A growing file's chunks count once, however often it is looked at."""
    scanner = PngScanner()
    crumbs = SIGNATURE + chunk(b"prVt") * 6000
    first = scanner.scan(put(fd, crumbs))
    second = scanner.scan(put(fd, crumbs + chunk(b"IEND")))

    assert ("incomplete", "complete") == (first, second)


def test_first_part_damaged_later(fd: int) -> None:
    """A verified beginning that is overwritten while the rest arrives is noticed."""
    scanner = PngScanner()
    scanner.scan(put(fd, WHOLE[:-5]))
    os.pwrite(fd, WHOLE, 0)
    os.pwrite(fd, b"\1", 20)

    assert "damaged" == scanner.scan(fd)
