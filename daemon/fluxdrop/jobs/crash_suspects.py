"""Which jobs the daemon itself may have died over.

Pictures are decoded in the daemon and, by some engines, predicted there: a library that crashes, or
a system short of memory, then ends all of it. So each stage's file names the jobs in hand for as
long as that can happen. Whom it still names at the next start, the daemon died over, which a mark in
the job's folder counts. Other deaths, as long as a job waits or is published or a worker has it, are
not counted against it.

The file begins with a name of the daemon's own life, and a mark has the names of the lives that ended
over its job, a line each: so a count that is broken off and made again counts each death once.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.jobs.job import Job

MOST_DEATHS = 3

SuspectStage = Literal["preprocess", "predict"]


class Died(NamedTuple):
    """In which *stage* the daemon died over a job, and how many times in a row."""

    stage: SuspectStage
    deaths: int

    def error(self, job: Job) -> FluxdropError:
        """Why *job* is not tried once more."""
        return FluxdropError(
            f"{job.name} was in hand each time when the daemon died, {self.deaths} times in a row",
            hint="It may need more memory than there is, or break a library that reads it; look at"
            " what the system's log says of the daemon's end, or save the picture anew.",
            kind="crash",
        )


class CrashSuspects:
    """Which jobs *stage* has in hand in the daemon of *root*. One thread owns it, and closes it."""

    def __init__(self, root: Root, stage: SuspectStage) -> None:
        self._stage = stage
        self._life = secrets.token_hex(8)
        self._fd = durable.open_own(_file(root, stage), os.O_RDWR | os.O_CREAT)
        self._named = 0
        """How many bytes of names may lie in the file."""

    @contextmanager
    def over(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Say that the daemon would die over *jobs* if it died while the body runs."""
        if not jobs:
            yield
            return
        # It outlives the process without a sync, if not a power cut. A file for each job would cost
        # more than decoding a small picture does.
        lines = "".join(f"{line}\n" for line in (self._life, *(job.id for job in jobs))).encode()
        os.pwrite(self._fd, lines.ljust(self._named, b"\n"), 0)
        self._named = len(lines)
        try:
            yield
        finally:
            # Some filesystems take five times as long to cut a file off, and to give it a block anew.
            os.pwrite(self._fd, b"\n" * len(lines), 0)
            self._named = 0
            for job in jobs:
                if job.suspect:
                    _mark(job.folder, self._stage).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)


def count_deaths(root: Root) -> None:
    """Count one more death over each job that an earlier daemon of *root* had in hand at its end.

    Raises OSError when the disk is in the way; calling it again is harmless.
    """
    for stage in get_args(SuspectStage):
        file = _file(root, stage)
        with suppress(FileNotFoundError):
            # Whatever a power cut left in the file, it only names what is there.
            life, *in_hand = _read(file).split() or [b""]
            for folder in root.work.iterdir():
                if os.fsencode(folder.name) in in_hand and not folder.is_symlink():
                    _count(_mark(folder, stage), life)
            os.close(durable.open_own(file, os.O_WRONLY | os.O_TRUNC))


def _count(mark: Path, life: bytes) -> None:
    lives = _lives(mark)
    if life in lives:
        return
    try:
        fd = durable.open_own(mark, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    except OSError as error:
        if error.errno not in durable.NOT_REGULAR:
            raise
        durable.renew_own(mark, life + b"\n")
        return
    with os.fdopen(fd, "ab") as file:
        # Behind the last whole line may lie what an earlier try could not end.
        file.truncate(sum(len(one) + 1 for one in lives))
        file.write(life + b"\n")


def _lives(mark: Path) -> list[bytes]:
    """The lives in whole lines of the file *mark*; none where it is not there, or something else is: a folder that
    was restored may hold anything."""
    return _read(mark).split(b"\n")[:-1]


def _read(file: Path) -> bytes:
    try:
        return durable.read_own(file)
    except OSError as error:
        if error.errno not in {*durable.NOT_REGULAR, errno.EFBIG}:
            raise
        return b""


def deaths(folder: Path) -> Died | None:
    """How the daemon died over the job in *folder*; None when it did not."""
    for stage in get_args(SuspectStage):
        lives = _lives(_mark(folder, stage))
        if lives:
            return Died(stage, len(lives))
    return None


def _file(root: Root, stage: SuspectStage) -> Path:
    return root.state / f"in-{stage}"


def _mark(folder: Path, stage: SuspectStage) -> Path:
    return folder / f"in-{stage}"
