"""What the sweep tries: a network in one or more folders, and what it answers in its own library."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from support.sweep.random_weights import Reference

LABELS = ["oak", "maple", "birch", "alder", "willow"]


class Made(NamedTuple):
    """A network of a library, as its users may have it."""

    reference: Reference
    """What it answers for the photographs."""
    folders: dict[str, Path]
    """By form, such as ``safetensors``: what is given to `model add`."""
    unmade: dict[str, str]
    """By form: why the library cannot write it."""
