"""Classify files by name: a prompt, a picture, or one that fluxdrop does not take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from fluxdrop.files.folders import files_below
from fluxdrop.jobs.side_files import is_side_file
from fluxdrop.picture_formats import PICTURE_SUFFIXES, USUAL_SUFFIXES

InputKind = Literal["prompt", "picture"]

PROMPT_SUFFIXES = frozenset({".txt"})
WHAT_TO_DROP = f"a .txt prompt or a picture ({USUAL_SUFFIXES})"
"""What fluxdrop takes, as messages say it."""


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
    is_ignored: Callable[[str], bool] = is_side_file,
) -> Iterator[str]:
    """Yield the files in the inbox, as `files_below` does, without those that are left alone.

    Args:
        inbox: The inbox.
        below: A path below it; only files there are yielded. Empty for all.
        on_error: Called with each folder that cannot be read, and the reason.
        is_ignored: Whether a file or folder with a name is left alone.
    """
    return files_below(inbox, below, is_ignored, on_error)
