"""Payloads with a head: its length, the head as JSON, and then anything."""

from __future__ import annotations

import struct
from typing import TypeVar

import msgspec

from fluxdrop.processes.wire import WireError

T = TypeVar("T")

_LENGTH = struct.Struct("<I")


def pack_head(head: object) -> bytes:
    """Return the length of *head* and *head*, of which msgspec makes JSON; the rest of the payload follows it."""
    data = msgspec.json.encode(head)
    return _LENGTH.pack(len(data)) + data


def unpack_head(payload: bytes | bytearray, kind: type[T], what: str) -> tuple[T, int]:
    """Return the head of *payload*, and where the rest begins.

    Args:
        payload: What begins with what `pack_head` returned.
        kind: The type of the head.
        what: What it is the head of, for the error.

    Raises:
        WireError: There is no such head.
    """
    try:
        (length,) = _LENGTH.unpack_from(payload)
        end = _LENGTH.size + length
        return msgspec.json.decode(payload[_LENGTH.size : end], type=kind), end
    except (struct.error, msgspec.DecodeError) as error:
        raise WireError(f"{what} without a head: {error}") from error
