"""Make JSON decoders that any thread may use."""

from __future__ import annotations

import threading
from typing import Any

import msgspec

_LOCK = threading.Lock()


def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Return a JSON decoder that any thread may use.

    Make the decoder of a class that threads decode here, once, when the module that owns it is
    imported: msgspec 0.22 crashes when a thread meets a class that another thread has not finished
    with (docs/known-defects.md). Any thread may call this function.

    Args:
        kind: A class of msgspec, or a union of such classes.

    Returns:
        A decoder that returns objects of *kind*, and raises msgspec.DecodeError for anything else.
    """
    with _LOCK:
        return msgspec.json.Decoder(kind)
