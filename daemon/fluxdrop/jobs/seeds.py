"""The seeds of pictures whose prompts have none: each is drawn once, so that another try makes the same picture.

A seed is the name of an empty file in the job's folder. So it is there whole or not at all, is found by reading the
folder, and is on the disk after one sync of the folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from fluxdrop.files import durable
from fluxdrop.generate.parameters import random_seed

_NAME = re.compile(r"seed=([0-9]{1,10})", re.ASCII)


def seed_among(names: Iterable[str]) -> int | None:
    """Return the seed that one of the *names* in a job's folder is; None if none is."""
    return next((int(found[1]) for found in map(_NAME.fullmatch, names) if found), None)


def draw_seeds(folders: Sequence[Path]) -> list[int]:
    """Draw a seed for the job in each of *folders*, which has none; they are on the disk on return. Raises OSError."""
    seeds = [random_seed() for _ in folders]
    files = [folder / f"seed={seed}" for folder, seed in zip(folders, seeds, strict=True)]
    try:
        for file in files:
            durable.put(file, b"")
        durable.sync_all([], folders)
    except OSError:
        # Others are drawn when there is room, and a folder has one.
        for file in files:
            with suppress(OSError):
                file.unlink()
        raise
    return seeds
