"""Names that strangers chose, as JSON, SQLite and a terminal can show them."""

from __future__ import annotations

import unicodedata

_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
# They make the text around them be shown in another order, as in "exe.gnp".
_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def printable(name: str) -> str:
    """*name* as JSON, SQLite and a terminal can show it.

    Undecodable bytes, control characters, line separators and what turns the direction of text are
    replaced.
    """
    if name.isascii() and name.isprintable():
        return name
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(letter if _is_plain(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _is_plain(letter: str) -> bool:
    return (
        unicodedata.category(letter) not in _UNPRINTABLE
        and unicodedata.bidirectional(letter) not in _TURNING
    )
