"""Make names from untrusted users safe for JSON, SQLite and a terminal."""

from __future__ import annotations

import unicodedata

_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
# These change the order in which the text around them is shown, as in "exe.gnp".
_DIRECTION_CONTROLS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def printable(name: str) -> str:
    """Return *name* with every unsafe character replaced by U+FFFD.

    These are undecodable bytes (surrogates of `os.fsdecode`) and other surrogates, control characters, line separators,
    and characters that change the direction of text.
    """
    if name.isascii() and name.isprintable():
        return name
    try:
        text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:
        # JSON can write half a pair of surrogates, which stands for no byte.
        text = name
    return "".join(letter if _is_plain(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _is_plain(letter: str) -> bool:
    return (
        unicodedata.category(letter) not in _UNPRINTABLE
        and unicodedata.bidirectional(letter) not in _DIRECTION_CONTROLS
    )
