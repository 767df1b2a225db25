"""Whether a prompt file that is JSON, such as the workflow of a generator, ends too early."""

from __future__ import annotations

import os

import msgspec

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_TRUNCATED = "truncated"
"""What the message of msgspec's DecodeError has if the data end within a value."""


def ends_early(fd: int, size: int) -> bool:
    """Return whether the *size* bytes of the file open as *fd* are the beginning of a JSON object or array.

    UTF-8 only; anything else is not known to end early.
    """
    head = os.pread(fd, 64, 0).removeprefix(_BYTE_ORDER_MARK).lstrip(_SPACE)
    if head[:1] not in (b"{", b"["):
        return False
    try:
        msgspec.json.decode(os.pread(fd, size, 0).removeprefix(_BYTE_ORDER_MARK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _TRUNCATED in str(error)
    return False
