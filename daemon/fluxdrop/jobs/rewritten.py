"""Whether the input of a job was written to after it was taken: whoever dropped it may still have it open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fluxdrop.files import durable
from fluxdrop.files.regular import chunks, open_regular
from fluxdrop.jobs.claim import SOURCE, read_claim
from fluxdrop.jobs.input_state import state_of
from fluxdrop.jobs.job import CANCELLED, GENERATION, OPTIONS, Job, input_sha256

_COPY_BYTES = 1 << 20


def is_rewritten(job: Job, max_bytes: int, *, has_failed: bool) -> bool:
    """Return whether the input of *job* was written to after it was taken, so that what came of it is void.

    A prompt that was written to after it was taken may have been read in part. A picture that was decoded was whole;
    if its time alone was set, it is as good as before.

    Args:
        job: The job.
        max_bytes: The largest input that is hashed.
        has_failed: Whether the job failed. Then its contents are not known.
    """
    if job.was_rewritten:
        return True
    state = state_of(job.input)
    if job.input_state is None or state is None or state == job.input_state:
        return False
    if has_failed or job.kind != "picture":
        return True
    return job.sha256 != input_sha256(job, max_bytes)


def is_written_by_others(job: Job) -> bool:
    """Return whether somebody may write to the input of *job*: it was dropped, and is not a copy of this daemon's."""
    options = job.options
    return options.replay_of is None and (options.part is None or options.part.number == 1)


class _ChangedError(Exception):
    """The input was written to while it was copied."""


def detach_input(job: Job, max_bytes: int) -> bool:
    """Put a copy in the place of the input of *job*, so that whoever has it open cannot write to what is published.

    The copy has the input's time, so that it does not count as rewritten. What is written to the input from then on is
    lost.

    Returns:
        False if the input was written to meanwhile; then it is left in its place.

    Raises:
        FluxdropError: It cannot be read, or has more than *max_bytes* bytes.
        OSError: The disk is full or not available.
    """
    before = state_of(job.input)

    def parts() -> Iterator[bytes]:
        with open_regular(job.input, "unreadable", job.name) as reader:
            yield from chunks(reader, max_bytes, job.name, _COPY_BYTES)
        if state_of(job.input) != before:
            raise _ChangedError

    try:
        durable.write(job.input, parts())
    except _ChangedError:
        return False
    if before is not None:
        os.utime(job.input, ns=(before.mtime_ns, before.mtime_ns))
    return True


def discard_results(folder: Path) -> None:
    """Remove what was made of the input of the job in *folder*, so that the job begins anew. Raises OSError."""
    claim = read_claim(folder)
    if claim is None:
        return
    made = claim.others - {SOURCE, OPTIONS, CANCELLED}
    # As long as this is there, a start takes the picture to be that of the prompt.
    for name in sorted(made, key=lambda name: name != GENERATION):
        with suppress(FileNotFoundError):
            (folder / name).unlink()
