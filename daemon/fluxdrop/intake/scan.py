"""What lies in the inbox: the truth that events only hint at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from fluxdrop.folders import files_below
from fluxdrop.intake.names import is_ignored


def scan(
    inbox: Path,
    below: str = "",
    on_error: Callable[[str, OSError], None] = lambda _folder, _error: None,
) -> Iterator[str]:
    """The files in *inbox*, or in its subfolder *below*, as `files_below` finds them, without those
    whose names are ignored."""
    return files_below(inbox, below, is_ignored, on_error)
