"""What a file's name says: a prompt, a picture, a file in the making, or nothing that fluxdrop
takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from fluxdrop.files.folders import files_below

InputKind = Literal["prompt", "picture"]

PROMPT_SUFFIXES = frozenset({".txt"})
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})

# Browsers, rsync, Syncthing, FTP clients and editors write under such names and rename when they
# are done.
_IN_THE_MAKING_SUFFIXES = (
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
_IN_THE_MAKING_PREFIXES = (".", "~", "#")
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
    """Whether a file or folder called *name* is left alone: hidden, in the making, or a system's
    own.
    """
    lower = name.lower()
    return (
        lower.startswith(_IN_THE_MAKING_PREFIXES)
        or lower.endswith(_IN_THE_MAKING_SUFFIXES)
        or lower in _SYSTEM_FILES
    )


def kind_of(name: str) -> InputKind | None:
    """What a file called *name* holds, by its suffix; None for what fluxdrop does not take."""
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
    """The files in *inbox*, or in its subfolder *below*, as `files_below` finds them, without those
    whose names are ignored."""
    return files_below(inbox, below, is_ignored, on_error)
