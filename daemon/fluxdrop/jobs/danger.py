"""Which jobs the daemon itself may have died over.

Pictures are decoded in the daemon and, by some engines, predicted there: a library that crashes, or
a system short of memory, then ends all of it. So each job leaves a mark in its folder for as long as
that can happen. A mark that is still there at the next start is a death. Other deaths, as long as a
job waits or is published or a worker has it, are not counted against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.job import Job, printable

MOST_DEATHS = 3

Danger = Literal["preprocess", "predict"]


class Died(NamedTuple):
    """In which *stage* the daemon died over a job, and how many times in a row."""

    stage: Danger
    deaths: int

    def error(self, job: Job) -> FluxdropError:
        """Why *job* is not tried once more."""
        return FluxdropError(
            f"{printable(job.input.name)} was in hand each time when the daemon died,"
            f" {self.deaths} times in a row",
            hint="It may need more memory than there is, or break a library that reads it; look at"
            " what the system's log says of the daemon's end, or save the picture anew.",
            kind="crash",
        )


@contextmanager
def in_danger(jobs: Sequence[Job], stage: Danger) -> Iterator[None]:
    """Say that the daemon would die over *jobs* if it died while the body runs."""
    with ExitStack() as marks:
        for job in jobs:
            mark = _mark(job.folder, stage)
            # A byte for each time; it outlives the process without a sync, if not a power cut.
            with mark.open("ab") as file:
                file.write(b".")
            marks.callback(mark.unlink, missing_ok=True)
        yield


def deaths(folder: Path) -> Died | None:
    """How the daemon died over the job in *folder*; None when it did not."""
    for stage in get_args(Danger):
        try:
            return Died(stage, _mark(folder, stage).stat().st_size)
        except FileNotFoundError:
            continue
    return None


def _mark(folder: Path, stage: Danger) -> Path:
    return folder / f"in-{stage}"
