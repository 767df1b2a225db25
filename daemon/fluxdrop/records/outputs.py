"""Reading back what lies in outputs/: the folder that all else can be made of again.

Whoever may write to outputs/ may have put anything there, or may be exchanging it just now.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.files.folders import Folders, files_below
from fluxdrop.files.layout import Root
from fluxdrop.files.regular import open_regular
from fluxdrop.jobs.job_id import is_job_id
from fluxdrop.records.result import Record, decode

MOST_BYTES = 1 << 22
"""No record is larger: it holds tens of thousands of labels. One that is decoded takes some twenty times that."""


def records(root: Root) -> Iterator[tuple[Record, str]]:
    """Each record of *root* with its path below it; what is no record of ours is passed over."""
    with closing(root.open_outputs()) as folders:
        for path in files_below(root.outputs, skip=lambda name: name.startswith(".")):
            if path.endswith(".json"):
                record = read_record(folders, path)
                if record is not None:
                    yield record, f"{root.outputs.name}/{path}"


def read_record(folders: Folders, path: str) -> Record | None:
    """The record in the file *path* of the *folders* below outputs/; None when it is gone or is no
    record of ours."""
    parent, _, name = path.rpartition("/")
    try:
        with open_regular(name, "record", folder=folders.fd(parent)) as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            return None
        record = decode(data)
    except (FluxdropError, OSError, msgspec.DecodeError):
        return None
    return record if is_job_id(record.job_id) else None
