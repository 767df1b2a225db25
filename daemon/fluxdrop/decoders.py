"""Decoders of JSON that any thread may use."""

from __future__ import annotations

import threading
from typing import Any

import msgspec

_ONE_AT_A_TIME = threading.Lock()


def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """A decoder of *kind*, a class of msgspec or a union of such.

    What is decoded in threads has its decoder made here, once, when its module is imported: msgspec
    0.22 crashes when a thread meets a class with which another has not finished (docs/known-defects.md).
    """
    with _ONE_AT_A_TIME:
        return msgspec.json.Decoder(kind)
