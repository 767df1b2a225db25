"""Classify files by name: a prompt, a picture, an unfinished file, or one that fluxdrop does not take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from fluxdrop.files.folders import files_below
from fluxdrop.picture_formats import PICTURE_SUFFIXES, USUAL_SUFFIXES

InputKind = Literal["prompt", "picture"]

PROMPT_SUFFIXES = frozenset({".txt"})
WHAT_TO_DROP = f"a .txt prompt or a picture ({USUAL_SUFFIXES})"
"""What fluxdrop takes, as messages say it."""

# Browsers, rsync, Syncthing, FTP clients and editors write under such names and rename the file when it
# is complete.
_UNFINISHED_SUFFIXES = (
    "~",
    ".part",
    ".partial",
    ".tmp",
    ".temp",
    ".crdownload",
    ".download",
    ".filepart",
    ".aria2",
    ".opdownload",
    ".swp",
    ".swx",
)
_UNFINISHED_PREFIXES = (".", "~", "#")
_SYSTEM_FILES = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "__macosx",
        "@eadir",
    }
)


def is_ignored(name: str) -> bool:
    """Return whether a file or folder is ignored: hidden, unfinished, or the operating system's own."""
    lower = name.lower()
    return (
        lower.startswith(_UNFINISHED_PREFIXES)
        or lower.endswith(_UNFINISHED_SUFFIXES)
        or lower in _SYSTEM_FILES
    )


def kind_of(name: str) -> InputKind | None:
    """Return the kind of input that *name*'s suffix stands for; None if fluxdrop does not take it."""
    stem, _, end = name.rpartition("/")[2].rpartition(".")
    suffix = f".{end.lower()}" if stem else ""
    if suffix in PROMPT_SUFFIXES:
        return "prompt"
    if suffix in PICTURE_SUFFIXES:
        return "picture"
    return None


def scan(
    inbox: Path,
    below: str = "",
    on_error: Callable[[str, OSError], None] = lambda _folder, _error: None,
) -> Iterator[str]:
    """Yield the files in the inbox, as `files_below` does, except those that `is_ignored`.

    Args:
        inbox: The inbox.
        below: A path below it; only files there are yielded. Empty for all.
        on_error: Called with each folder that cannot be read, and the reason.
    """
    return files_below(inbox, below, is_ignored, on_error)
