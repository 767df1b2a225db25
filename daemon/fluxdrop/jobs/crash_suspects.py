"""Record which jobs may have crashed the daemon.

Pictures are decoded in the daemon and, with some engines, predicted there. A library that crashes, or
a lack of memory, then ends the whole daemon. So each of these stages has a file that names the jobs in
hand while that can happen. The jobs that it still names at the next start are the suspects; a file in
each one's folder, its mark, counts such deaths. A death of the daemon while a job waits, is published
or is with a worker does not count against the job.

The stage's file begins with a random id of this run of the daemon. A mark has a line for each run that
ended over the job, with that id. So each death is counted once, even if counting is interrupted and
done again.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.jobs.job import Job

MAX_DEATHS = 3
"""A job fails when so many processes died over it: workers and generators, or daemons in a row."""

SuspectStage = Literal["preprocess", "predict"]


class Died(NamedTuple):
    """In which *stage* the daemon died over a job, and how many times in a row."""

    stage: SuspectStage
    deaths: int

    def error(self, job: Job) -> FluxdropError:
        """Return the error with which *job* fails."""
        return FluxdropError(
            f"{job.name} was in hand each time when the daemon died, {self.deaths} times in a row",
            hint="It may need more memory than there is, or break a library that reads it; look at"
            " what the system's log says of the daemon's end, or save the picture anew.",
            kind="crash",
        )


class CrashSuspects:
    """The file that names the jobs that *stage* has in hand. Any thread may use it."""

    def __init__(self, root: Root, stage: SuspectStage) -> None:
        self._stage = stage
        self._run_id = secrets.token_hex(8)
        self._fd = durable.open_own(_file(root, stage), os.O_RDWR | os.O_CREAT)
        self._used_bytes = 0
        """How many bytes at the file's beginning may have to be overwritten."""
        self._lock = threading.Lock()
        self._in_hand: dict[object, list[str]] = {}
        """The ids of the jobs in hand, by the call of `over`."""

    @contextmanager
    def over(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Name *jobs* in the file while the body runs: if the daemon dies in it, they are the suspects."""
        if not jobs:
            yield
            return
        key = object()
        self._in_hand[key] = [job.id for job in jobs]
        try:
            self._write()
        except BaseException:
            del self._in_hand[key]
            raise
        try:
            yield
        finally:
            del self._in_hand[key]
            self._write()
            for job in jobs:
                if job.suspect:
                    _mark(job.folder, self._stage).unlink(missing_ok=True)

    def _write(self) -> None:
        """Write all jobs in hand to the file."""
        with self._lock:
            ids = [one for each in [*self._in_hand.values()] for one in each]
            lines = "".join(f"{line}\n" for line in (self._run_id, *ids)).encode() if ids else b""
            # Without a sync this survives the process, though not a power cut. A file for each job would
            # cost more time than decoding a small picture. Truncating takes some filesystems five times
            # as long as overwriting, since they allocate the block again.
            os.pwrite(self._fd, lines.ljust(self._used_bytes, b"\n"), 0)
            self._used_bytes = len(lines)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def count_deaths(root: Root) -> None:
    """Count one more death against each job that the previous daemon of *root* had in hand when it died.

    Repeating the call is harmless.

    Raises:
        OSError: The disk failed.
    """
    for stage in get_args(SuspectStage):
        file = _file(root, stage)
        with suppress(FileNotFoundError):
            # A power cut may leave anything in the file, so only names of existing jobs count.
            run_id, *in_hand = _read(file).split() or [b""]
            for folder in root.work.iterdir():
                if os.fsencode(folder.name) in in_hand and not folder.is_symlink():
                    _count(_mark(folder, stage), run_id)
            os.close(durable.open_own(file, os.O_WRONLY | os.O_TRUNC))


def _count(mark: Path, run_id: bytes) -> None:
    run_ids = _run_ids(mark)
    if run_id in run_ids:
        return
    try:
        fd = durable.open_own(mark, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    except OSError as error:
        if error.errno not in durable.NOT_REGULAR:
            raise
        durable.renew_own(mark, run_id + b"\n")
        return
    with os.fdopen(fd, "ab") as file:
        # After the last complete line there may be part of one, from a write that failed.
        file.truncate(sum(len(one) + 1 for one in run_ids))
        file.write(run_id + b"\n")


def _run_ids(mark: Path) -> list[bytes]:
    """Return the complete lines of the file *mark*; none if there is no such regular file.

    A job's folder that was restored from a backup may hold anything.
    """
    return _read(mark).split(b"\n")[:-1]


def _read(file: Path) -> bytes:
    try:
        return durable.read_own(file)
    except OSError as error:
        if error.errno not in {*durable.NOT_REGULAR, errno.EFBIG}:
            raise
        return b""


def deaths(folder: Path) -> Died | None:
    """Return how the daemon died over the job in *folder*; None if it did not."""
    for stage in get_args(SuspectStage):
        run_ids = _run_ids(_mark(folder, stage))
        if run_ids:
            return Died(stage, len(run_ids))
    return None


def _file(root: Root, stage: SuspectStage) -> Path:
    return root.state / f"in-{stage}"


def _mark(folder: Path, stage: SuspectStage) -> Path:
    return folder / f"in-{stage}"
