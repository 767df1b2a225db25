"""Reading back what lies in outputs/: the folder that all else can be made of again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.regular import open_regular
from fluxdrop.layout import Root
from fluxdrop.publish.result import Record, decode


def records(root: Root) -> Iterator[tuple[Record, str]]:
    """Each record of *root* with its path below it; what is no record of ours is passed over."""
    for current, _folders, files in os.walk(root.outputs):
        for name in files:
            if name.endswith(".json"):
                path = Path(current, name)
                record = read_record(path)
                if record is not None:
                    yield record, path.relative_to(root.path).as_posix()


def read_record(path: Path) -> Record | None:
    """The record in the file *path*; None when it is gone or is no record of ours."""
    try:
        with open_regular(path, "record") as file:
            return decode(file.read())
    except (FluxdropError, OSError, msgspec.DecodeError):
        return None
