"""Read the records in outputs/, from which the index and the gallery can be rebuilt.

Nothing there is trusted: users who may write to outputs/ can put anything there, at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.files.folders import Folders, files_below
from fluxdrop.files.layout import Root
from fluxdrop.files.regular import open_regular
from fluxdrop.jobs.job_id import is_job_id
from fluxdrop.records.result import Record, decode

MAX_RECORD_BYTES = 1 << 22
"""The size limit of a record, enough for tens of thousands of labels. Decoding takes some 20 times the memory."""


def records(
    root: Root, on_skip: Callable[[str], None] = lambda _path: None
) -> Iterator[tuple[Record, str]]:
    """Yield each record of *root* with its path below it.

    *on_skip* is called with the path of each JSON file that is not a record.
    """
    with closing(root.open_outputs()) as folders:
        for path in files_below(root.outputs, skip=lambda name: name.startswith(".")):
            if path.endswith(".json"):
                record = try_read_record(folders, path)
                if record is not None:
                    yield record, f"{root.outputs.name}/{path}"
                else:
                    on_skip(f"{root.outputs.name}/{path}")


def try_read_record(folders: Folders, path: str) -> Record | None:
    """Read the record at *path* below outputs/; return None if it is gone or is not a record.

    *folders* are those of outputs/.
    """
    parent, _, name = path.rpartition("/")
    try:
        with open_regular(name, "record", folder=folders.fd(parent)) as file:
            data = file.read(MAX_RECORD_BYTES + 1)
        if len(data) > MAX_RECORD_BYTES:
            return None
        record = decode(data)
    except (FluxdropError, OSError, msgspec.DecodeError):
        return None
    return record if is_job_id(record.job_id) else None
