"""When two spellings mean the same folder of the inbox."""

from __future__ import annotations

import unicodedata


def folder_key(name: str) -> str:
    """Return what is the same for all spellings of *name* that differ in capitals or the form of accents.

    Shares of Windows and macOS change both.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
