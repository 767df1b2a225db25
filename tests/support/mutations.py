"""Pictures that are wrong in ways that a checksum does not tell, from a seeded fuzzer."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Chunk(NamedTuple):
    """A chunk as it is written: *length* and *checksum* need not be right."""

    kind: bytes
    data: bytes
    length: int
    checksum: int


def chunk(kind: bytes, data: bytes) -> Chunk:
    """A chunk that is right."""
    return Chunk(kind, data, len(data), zlib.crc32(kind + data))


def join(chunks: list[Chunk]) -> bytes:
    """The PNG of *chunks*."""
    return SIGNATURE + b"".join(
        struct.pack(">I4s", length, kind) + data + struct.pack(">I", checksum)
        for kind, data, length, checksum in chunks
    )


def split(png: bytes) -> list[Chunk]:
    """The chunks of a PNG that is right."""
    chunks = []
    place = len(SIGNATURE)
    while place < len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        chunks.append(chunk(kind, png[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def small_picture(file_format: str, mode: str = "P") -> bytes:
    """A picture of a few hundred bytes."""
    file = io.BytesIO()
    image = Image.radial_gradient("L").resize((16, 16)).convert(mode)
    image.save(file, file_format)
    return file.getvalue()


def mutated_pngs(count: int, seed: int) -> Iterator[bytes]:
    """*count* PNGs, each with one to three mutations of one of several kinds of PNG."""
    chance = random.Random(seed)
    originals = [split(small_picture("PNG", mode)) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    for _ in range(count):
        chunks = list(chance.choice(originals))
        for _ in range(chance.randint(1, 3)):
            chance.choice(_MUTATIONS)(chance, chunks)
        yield join(chunks)


def mutated_bytes(original: bytes, count: int, seed: int) -> Iterator[bytes]:
    """*count* times *original* with bytes changed, removed, doubled or cut off."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(original)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(data) + 1)
            match chance.randrange(4):
                case 0:
                    data[place : place + 1] = chance.randbytes(1)
                case 1:
                    del data[place : place + chance.randint(1, 8)]
                case 2:
                    data[place:place] = data[place : place + chance.randint(1, 40)]
                case 3 if chance.random() < 0.2:
                    del data[place:]
        yield bytes(data)


def _flip(chance: random.Random, chunks: list[Chunk]) -> None:
    """A few bits of a chunk's data, under a checksum that holds."""
    place, found = _any(chance, chunks)
    data = bytearray(found.data)
    for _ in range(chance.randint(1, 4) if data else 0):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    chunks[place] = chunk(found.kind, bytes(data))


def _resize(chance: random.Random, chunks: list[Chunk]) -> None:
    """A header, or what takes its place, that announces something else."""
    place, found = chance.choice([(p, c) for p, c in enumerate(chunks) if len(c.data) >= 13])
    data = bytearray(found.data)
    if chance.random() < 0.5:
        struct.pack_into(
            ">I", data, chance.choice((0, 4)), chance.getrandbits(32) >> chance.randrange(32)
        )
    else:
        data[chance.randrange(8, 13)] = chance.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    chunks[place] = chunk(found.kind, bytes(data))


def _swap(chance: random.Random, chunks: list[Chunk]) -> None:
    """Two chunks change places."""
    (a, _), (b, _) = _any(chance, chunks), _any(chance, chunks)
    chunks[a], chunks[b] = chunks[b], chunks[a]


def _double(chance: random.Random, chunks: list[Chunk]) -> None:
    """A chunk is there twice."""
    place, found = _any(chance, chunks)
    chunks.insert(place, found)


def _lie_of_length(chance: random.Random, chunks: list[Chunk]) -> None:
    """A length that is not that of the data."""
    place, found = _any(chance, chunks)
    lies = (0, len(found.data) + 1, max(0, len(found.data) - 1), 2**31, 2**32 - 1)
    chunks[place] = found._replace(length=chance.choice(lies))


def _lie_of_checksum(chance: random.Random, chunks: list[Chunk]) -> None:
    """A checksum that does not hold."""
    place, found = _any(chance, chunks)
    chunks[place] = found._replace(checksum=chance.getrandbits(32))


def _insert(chance: random.Random, chunks: list[Chunk]) -> None:
    """A chunk of any kind with any data, also kinds that readers unpack and interpret."""
    kinds = b"tEXt zTXt iTXt iCCP eXIf tRNS gAMA pHYs PLTE acTL fcTL fdAT IDAT IEND prVt CRIT"
    data = chance.choice((b"", b"a\0\0" + zlib.compress(bytes(99)), chance.randbytes(40)))
    chunks.insert(chance.randrange(len(chunks) + 1), chunk(chance.choice(kinds.split()), data))


def _deflate(chance: random.Random, chunks: list[Chunk]) -> None:
    """Pixels that unpack, but to something else."""
    pixels = chance.randbytes(chance.choice((0, 1, 100, 10_000)))
    place = chance.randrange(len(chunks))
    chunks[place] = chunk(b"IDAT", zlib.compress(pixels))


def _any(chance: random.Random, chunks: list[Chunk]) -> tuple[int, Chunk]:
    return chance.choice(list(enumerate(chunks)))


_MUTATIONS: list[Callable[[random.Random, list[Chunk]], None]] = [
    _flip,
    _resize,
    _swap,
    _double,
    _lie_of_length,
    _lie_of_checksum,
    _insert,
    _deflate,
]
