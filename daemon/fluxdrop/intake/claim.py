"""Claiming: one rename from the inbox into the job's own folder below .fluxdrop/work/."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from fluxdrop import faults
from fluxdrop.intake.scan import open_folder

INPUT = "input"
FAULT = "fault"


def new_job_id() -> str:
    """A job id that sorts by time and cannot be met twice."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def claim(
    inbox: Path,
    work: Path,
    source: str,
    is_same: Callable[[os.stat_result], bool],
    fault: str = "",
) -> Path | None:
    """Move *source* (relative to *inbox*) to a new folder work/JOB/input/SOURCE and return that
    folder. A *fault*, why the job has to fail, is noted there before.

    None when the file is gone or, by its status, not the one that is meant. The job is known by its
    folder and its source by the path inside it, so that the one rename says all, whatever happens
    next.
    """
    path = PurePosixPath(source)
    job = work / new_job_id()
    target = job / INPUT / path
    try:
        folder_fd = open_folder(inbox, str(path.parent))
    except FileNotFoundError:
        return None
    try:
        if not is_same(os.stat(path.name, dir_fd=folder_fd, follow_symlinks=False)):
            return None
        target.parent.mkdir(parents=True)
        if fault:
            (job / FAULT).write_text(fault)
        faults.point("claim-folder-made")
        os.rename(path.name, target, src_dir_fd=folder_fd)
        faults.point("claim-renamed")
    except FileNotFoundError:
        discard_empty(job)
        return None
    except OSError:
        discard_empty(job)
        raise
    finally:
        os.close(folder_fd)
    return job


def claimed_input(job: Path) -> PurePosixPath | None:
    """The source of the claim in the folder *job*, relative to the inbox; None when it holds no
    input.
    """
    for current, _folders, files in os.walk(job / INPUT):
        for name in files:
            return PurePosixPath(Path(current, name).relative_to(job / INPUT))
    return None


def claimed_fault(job: Path) -> str:
    """Why the job in the folder *job* has to fail; empty when nothing speaks against it."""
    try:
        return (job / FAULT).read_text()
    except FileNotFoundError:
        return ""


def discard_empty(job: Path) -> None:
    """Remove the folder *job* as far as it holds no file: a claim that never came to be."""
    (job / FAULT).unlink(missing_ok=True)
    for current, _folders, _files in os.walk(job, topdown=False):
        with contextlib.suppress(OSError):
            Path(current).rmdir()
