"""The table results.csv in the root: whole lines, each result once, in the order of their ends.

Each new line is first a debt in the outbox. It is appended and synced, and then the debt is removed. So after a kill,
the lines at the end of the file that are still owed tell how far the appending came, and a part of a line is cut off.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.folders import opened, set_aside
from fluxdrop.files.layout import Root
from fluxdrop.files.transient import is_transient
from fluxdrop.jobs.outbox import Outbox, Owed
from fluxdrop.jobs.store import JobFilter, Store
from fluxdrop.logs import get_logger
from fluxdrop.records.job_files import read_record
from fluxdrop.records.result import Record, Result
from fluxdrop.tables.answers import AnswerRow, answer_rows
from fluxdrop.tables.columns import NAMES
from fluxdrop.tables.csv_text import BOM, CsvEncoder

OUTLET = "results.csv"
_COLUMNS = [*NAMES, "probabilities"]
_MAX_LINES = 500
_PAUSE_SECONDS = 0.5
_RETRY_SECONDS = 5.0
_CLOSE_SECONDS = 10.0
_MAX_HEAD_BYTES = 1 << 16
_MAX_ZEROS = 1 << 20
_ID_BYTES = 24

log = get_logger("fluxdrop.hooks")


def lines_of(record: Record, path: str) -> bytes:
    """Return the lines for *record*, whose JSON lies at *path* below the root.

    Returns:
        Nothing for a failure, or, with a warning in the log, for values that fluxdrop does not write.
    """
    if not isinstance(record, Result):
        return b""
    encoder = CsvEncoder()
    try:
        return b"".join(_line(encoder, row) for row in answer_rows(record, path))
    except FluxdropError as error:
        log.warning("not in results.csv", job=record.job_id, reason=error.message)
        return b""


def _line(encoder: CsvEncoder, row: AnswerRow) -> bytes:
    found = {item.name: item.p for item in row.items if item.p is not None}
    return encoder.line([*row.fixed, msgspec.json.encode(found).decode() if found else None])


def _head() -> bytes:
    return BOM + CsvEncoder().line(_COLUMNS)


class ResultsCsv:
    """Keeps results.csv on a thread of its own. A problem is reported by `problem`; no job waits for it."""

    name = OUTLET

    def __init__(self, root: Root, store: Store, outbox: Outbox) -> None:
        """Prepare the thread; `start` starts it."""
        self.problem = ""
        """Why the table is behind; empty if it is not."""
        self.taken = 0
        """How many results were appended."""
        self._root = root
        self._store = store
        self._outbox = outbox
        self._path: Path = root.results_csv
        self._status: os.stat_result | None = None
        """The file as this left it; None while it may end with lines that are owed."""
        self._news = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=OUTLET, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Make the thread see that there is something new; return at once."""
        self._news.set()

    def close(self, _drain_seconds: float = 0.0) -> None:
        """Append what is owed and stop the thread, or give up after ten seconds."""
        self._closing.set()
        self._news.set()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            self._news.clear()
            is_last = self._closing.is_set()
            is_right = self._try_update()
            if is_last:
                return
            if is_right:
                self._closing.wait(_PAUSE_SECONDS)
                self._news.wait()
            else:
                self._closing.wait(_RETRY_SECONDS)

    def _try_update(self) -> bool:
        try:
            self.update()
        except (OSError, sqlite3.Error, FluxdropError) as error:
            reason = error.strerror if isinstance(error, OSError) else ""
            problem = f"{self._path} cannot be kept: {reason or error}"
            if problem != self.problem and not self._closing.is_set():
                log.warning("results.csv is behind", reason=problem)
            self.problem = problem
            return False
        self.problem = ""
        return True

    def update(self) -> None:
        """Append what is owed; write the file anew if it is missing, another's, or lacks results.

        Raises:
            OSError: The file cannot be written.
            FluxdropError: The index cannot be used; so with sqlite3.Error.
        """
        # That is what the index has and nothing is owed for: all, after the setting was switched on.
        missing = self._outbox.balances()[OUTLET].lost
        if not self._is_ours() or missing:
            self._rebuild()
            self._outbox.found(OUTLET, missing)
        while owed := self._outbox.oldest(OUTLET, _MAX_LINES):
            status = self._append(owed)
            self._outbox.pay(OUTLET, owed, sync=True)
            self._status = status
            self.taken += len(owed)

    def _is_ours(self) -> bool:
        """Return whether the file is there and begins with the names of the columns; otherwise set it aside."""
        try:
            with FileIO(durable.open_own(self._path, os.O_RDONLY)) as file:
                if self._status is not None and _same(self._status, os.fstat(file.fileno())):
                    return True
                self._status = None
                head = file.read(_MAX_HEAD_BYTES).removeprefix(BOM)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in durable.NOT_REGULAR:
                raise
            head = b""
        text = io.StringIO(head.decode("utf-8", "replace"), newline="")
        with suppress(csv.Error):
            if next(csv.reader(text), None) == _COLUMNS:
                return True
        with opened(self._path.parent) as folder:
            aside = set_aside(self._path.name, folder)
        log.warning("moved aside, as somebody changed its columns", path=str(self._path), to=aside)
        return False

    def _append(self, owed: list[Owed]) -> os.stat_result:
        """Append the lines of *owed* that are not at the end of the file yet, durably; return its status.

        Raises:
            OSError: It cannot be written. The next call looks how far this one came.
        """
        data = b"".join(one.data for one in owed)
        with FileIO(durable.open_own(self._path, os.O_RDWR), "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            done = 0
            if self._status is None or not _same(self._status, os.fstat(file.fileno())):
                size, done = _find_end(file, size, data)
                file.truncate(size)
            # Until the lines are no longer owed, they may be in the file.
            self._status = None
            file.seek(size)
            left = memoryview(data)[done:]
            while left:
                left = left[file.write(left) :]
            durable.wait_for(file.fileno())
            return os.fstat(file.fileno())

    def _rebuild(self) -> None:
        """Write the file from the index and the results, without those that are owed. Raises OSError.

        A result that is gone is left out.
        """
        with (
            opened(self._root.path) as folder,
            opened(self._root.state) as state,
            durable.temporary(state) as (file, unfinished),
        ):
            file.write(_head())
            for lines in self._known_lines():
                file.write(lines)
            durable.wait_for(file.fileno())
            os.replace(unfinished, self._path.name, src_dir_fd=state, dst_dir_fd=folder)
            durable.sync_open_folder(folder)
            self._status = os.fstat(file.fileno())

    def _known_lines(self) -> Iterator[bytes]:
        for row in self._store.each(JobFilter("done")):
            # A job that ends meanwhile owes its line from the moment at which the index says that it is done.
            if not self._outbox.has(OUTLET, row.id) and row.record is not None:
                try:
                    record = read_record(self._root, row)
                    if record.job_id == row.id:
                        yield lines_of(record, row.record)
                except FluxdropError as error:
                    if isinstance(error.__cause__, OSError) and is_transient(error.__cause__):
                        raise
                    log.warning("not in results.csv", job=row.id, reason=error.message)
                if self._closing.is_set():
                    raise OSError(errno.EINTR, "the daemon stops", str(self._path))


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_dev, one.st_size, one.st_mtime_ns) == (
        other.st_ino,
        other.st_dev,
        other.st_size,
        other.st_mtime_ns,
    )


def _find_end(file: FileIO, size: int, data: bytes) -> tuple[int, int]:
    """Return where to append to a file of *size* bytes, and how much of *data* is there already.

    A part of *data* at the end is what an earlier try wrote. Zeros behind it are what a power cut left.
    """
    start = max(0, size - 2 * len(data) - _MAX_ZEROS)
    file.seek(start)
    tail = file.read(size - start).rstrip(b"\0")
    end = start + len(tail)
    length = _length_of_part(tail, data)
    if length:
        return end, length
    if not tail.endswith(b"\n") and end:
        # Somebody's editor left out the end of the last line.
        file.seek(end)
        file.write(b"\r\n")
        end += 2
    return end, 0


def _length_of_part(tail: bytes, data: bytes) -> int:
    """Return the length of the longest part at the beginning of *data* with which *tail* ends.

    A line begins with its job's id, so what begins like *data* is a part of it.
    """
    begin = tail.find(data[:_ID_BYTES])
    while begin >= 0:
        if data.startswith(tail[begin:]):
            return len(tail) - begin
        begin = tail.find(data[:_ID_BYTES], begin + 1)
    # Less than an id: it follows the end of a line.
    part = tail[tail.rfind(b"\n") + 1 :]
    return len(part) if data.startswith(part) else 0
