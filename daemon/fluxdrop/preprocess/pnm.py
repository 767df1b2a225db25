"""Decode the Netpbm formats: PBM, PGM, PPM, PAM and PFM.

Formats: https://netpbm.sourceforge.net/doc/index.html; PFM: https://www.pauldebevec.com/Research/HDR/PFM/. numpy reads
them, as Pillow reads text and other ranges than 255 in Python, sample by sample, and with 8 bits only.
"""

from __future__ import annotations

import re
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fluxdrop.preprocess.decoded import Bounds, Decoded
from fluxdrop.preprocess.deep import of_floats, of_integers

_MAX_HEADER_BYTES = 4096
_TOKEN = rb"(?:[ \t\r\n]|#[^\n]*\n)+([^\s#]+)"
_COMMENT = re.compile(rb"#[^\n]*")
_PAM_LINE = re.compile(rb"[ \t]*(?:#[^\n]*|([A-Z]+)[ \t]*([^\n]*?)[ \t\r]*)\n")
_MAX_DIGITS = 20


def decode(file: IO[bytes], bounds: Bounds) -> Decoded:
    """Decode the first picture in *file*.

    Raises:
        FluxdropError: It is over the *bounds*.
        ValueError: It is damaged.
    """
    head = file.read(_MAX_HEADER_BYTES)
    magic = head[:2]
    if magic == b"P7":
        width, height, channels, largest, offset = _pam_header(head)
    else:
        count = 2 if magic in (b"P1", b"P4") else 3
        header = re.match(rb"P.%b[ \t\r\n]" % (_TOKEN * count), head, re.DOTALL)
        if header is None:
            raise ValueError("its header is incomplete")
        offset = header.end()
        width, height = _number(header[1]), _number(header[2])
        channels = 3 if magic in (b"P3", b"P6", b"PF") else 1
        largest = 1
        if magic in (b"Pf", b"PF"):
            scale = float(header[3])
        elif count == 3:
            largest = _number(header[3])
    if not (width and height):
        raise ValueError("it has no pixels")
    if not 0 < largest < 1 << 16:
        raise ValueError("its largest value is not between 1 and 65535")
    bounds.check(width, height)
    bounds.check_samples(width, height, channels * (4 if magic in (b"Pf", b"PF") else 2))
    file.seek(offset)
    shape = (height, width, channels)
    if magic in (b"Pf", b"PF"):
        floats = _samples(file, shape, ">f4" if scale > 0 else "<f4")[::-1]
        _warn_of_another(file, bounds)
        return Decoded(of_floats(floats, bounds.warn))
    if magic in (b"P1", b"P4"):
        bits = _bits_as_text(file, shape) if magic == b"P1" else _packed_bits(file, shape)
        _warn_of_another(file, bounds)
        # 1 is black.
        return Decoded(Image.fromarray((1 - bits) * np.uint8(255)))
    if magic in (b"P2", b"P3"):
        pixels = _numbers(file, shape)
    else:
        pixels = _samples(file, shape, ">u2" if largest > 255 else "u1")
    _warn_of_another(file, bounds)
    if pixels.max() > largest:
        raise ValueError(f"it has values over {largest}, the largest that it announces")
    if largest != 255:
        return Decoded(of_integers(pixels, bounds.warn, largest))
    return Decoded(eight_bit(pixels.astype(np.uint8)))


def _warn_of_another(file: IO[bytes], bounds: Bounds) -> None:
    """Warn if another picture follows. One in text is the only one, and *file* is at its end."""
    if re.match(rb"\s*P[1-7fF][\s#]", file.read(16)):
        bounds.warn("It has several pictures: the first one was taken.")


def eight_bit(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return the picture of *pixels*, (height, width, 1 to 4 channels)."""
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def _number(token: bytes) -> int:
    if not token.isdigit() or len(token) > _MAX_DIGITS:
        raise ValueError("its header has something else where a number belongs")
    return int(token)


def _pam_header(head: bytes) -> tuple[int, int, int, int, int]:
    """Return width, height, channels, the largest value, and where the pixels begin."""
    offset = 3
    fields: dict[bytes, bytes] = {}
    while line := _PAM_LINE.match(head, offset):
        offset = line.end()
        if line[1] == b"ENDHDR":
            names = (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL")
            width, height, channels, largest = (_number(fields.get(name, b"")) for name in names)
            if not 1 <= channels <= 4:
                raise ValueError(f"it has {channels} channels")
            return width, height, channels, largest, offset
        if line[1]:
            fields[line[1]] = line[2]
    raise ValueError("its header is incomplete")


def _samples(file: IO[bytes], shape: tuple[int, ...], kind: str) -> NDArray[Any]:
    needed = int(np.prod(shape)) * np.dtype(kind).itemsize
    data = file.read(needed)
    if len(data) < needed:
        raise ValueError(f"{needed - len(data):,} bytes of its pixels are missing")
    return np.frombuffer(data, kind).astype(np.dtype(kind).newbyteorder("=")).reshape(shape)


def _packed_bits(file: IO[bytes], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    height, width, _ = shape
    rows = _samples(file, (height, (width + 7) // 8), "u1")
    return np.unpackbits(rows, axis=1, count=width)


def _bits_as_text(file: IO[bytes], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    # The digits need not be apart.
    digits = re.sub(rb"\s+", b"", _COMMENT.sub(b"", file.read()))[: shape[0] * shape[1]]
    bits = np.frombuffer(digits, np.uint8) - ord("0")
    if len(bits) < shape[0] * shape[1] or (bits > 1).any():
        raise ValueError("its pixels are incomplete, or are not 0 and 1")
    return bits.reshape(shape[:2])


def _numbers(file: IO[bytes], shape: tuple[int, ...]) -> NDArray[np.uint16]:
    text = _COMMENT.sub(b"", file.read())
    count = int(np.prod(shape))
    if re.search(rb"[^0-9\s]|[0-9]{8}", text):
        raise ValueError("its pixels are not numbers in text")
    # With a count, numpy would fill up what is missing.
    numbers = np.fromstring(text, np.int32, sep=" ")[:count]
    if len(numbers) < count or numbers.max() > 65535:
        raise ValueError("its pixels are incomplete, or out of range")
    return numbers.reshape(shape).astype(np.uint16)
