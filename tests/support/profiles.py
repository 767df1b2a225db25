"""Colour profiles, made of their numbers: ICC.1:2001-04, https://www.color.org/icc_specs2.xalter."""

from __future__ import annotations

import struct

Xyz = tuple[float, float, float]

_WHITE: Xyz = (0.9642, 1.0, 0.8249)


def rgb_profile(red: Xyz, green: Xyz, blue: Xyz, gamma: float) -> bytes:
    """A profile of RGB with these primaries, adapted to D50."""
    curve = _curve(gamma)
    return _profile(
        b"RGB ",
        {
            b"desc": _description(),
            b"wtpt": _xyz(_WHITE),
            b"rXYZ": _xyz(red),
            b"gXYZ": _xyz(green),
            b"bXYZ": _xyz(blue),
            b"rTRC": curve,
            b"gTRC": curve,
            b"bTRC": curve,
        },
    )


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    table = struct.pack(">I", len(tags))
    data = b""
    start = 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        table += struct.pack(">4sII", name, start + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    size = start + len(data)
    header = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02100000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", *(round(value * 65536) for value in _WHITE))
    return header.ljust(128, b"\0") + table + data


def _xyz(value: Xyz) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(number * 65536) for number in value))


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _description() -> bytes:
    text = b"made by a test\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)


ADOBE_RGB = rgb_profile(
    (0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457), 2.2
)
"""The primaries of Adobe RGB (1998): https://www.adobe.com/digitalimag/pdfs/AdobeRGB1998.pdf."""

GREY_GAMMA_1 = _profile(
    b"GRAY", {b"desc": _description(), b"wtpt": _xyz(_WHITE), b"kTRC": _curve(1.0)}
)
"""Grey whose numbers are proportional to the light."""
