"""Claiming: one rename from the inbox into the job's own folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fluxdrop import durable, faults
from fluxdrop.folders import Folders

INPUT = "input"
FAULT = "fault"
_FLAT = f"{INPUT}="
_LONGEST_NAME = 255


class Claim(NamedTuple):
    """What a job's folder holds: *source* is the path that its *input* had below the inbox, *others*
    are the names of what else lies there."""

    source: PurePosixPath
    input: Path
    others: frozenset[str]


def new_job_id() -> str:
    """A job id that sorts by time and cannot be met twice."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def claim(
    inbox: Folders,
    work: Path,
    source: str,
    is_same: Callable[[os.stat_result], bool],
    fault: str = "",
) -> Path | None:
    """Move *source* (relative to *inbox*) into a new folder of its own in *work* and return that
    folder. A *fault*, why the job has to fail, is noted there before.

    None when the file is gone or, by its status, not the one that is meant. The job is known by its
    folder and its source by the input's path inside it, so that the one rename says all, whatever
    happens next.
    """
    folder, _, name = source.rpartition("/")
    job = work / new_job_id()
    target = place(job, source)
    try:
        folder_fd = inbox.fd(folder)
        if not is_same(os.stat(name, dir_fd=folder_fd, follow_symlinks=False)):
            return None
        # Not an older folder used again: of two renames, a power cut may keep the later one alone.
        job.mkdir()
        if target.parent != job:
            target.parent.mkdir(parents=True)
        if fault:
            # On the disk before the input: a power cut must not keep that alone, as what is not whole would be done.
            durable.write(job / FAULT, fault.encode())
        faults.point("claim-folder-made")
        os.rename(name, target, src_dir_fd=folder_fd)
        faults.point("claim-renamed")
    except FileNotFoundError:
        discard_empty(job)
        return None
    except OSError:
        discard_empty(job)
        raise
    return job


def place(job: Path, source: str) -> Path:
    """Where in the folder *job* the input lies that had the path *source* below the inbox."""
    # Its path in its name: folders of its own would cost more than the rest of a claim.
    name = _FLAT + source.replace("%", "%25").replace("/", "%2F")
    return job / name if len(os.fsencode(name)) <= _LONGEST_NAME else job / INPUT / source


def read_claim(job: Path) -> Claim | None:
    """What the folder *job* holds; None when there is no input in it."""
    try:
        others = frozenset(os.listdir(job))  # noqa: PTH208 - hot path
    except (FileNotFoundError, NotADirectoryError):
        return None
    for name in others:
        if name.startswith(_FLAT):
            told = name.removeprefix(_FLAT).replace("%2F", "/").replace("%25", "%")
            source = PurePosixPath(told)
            # Whoever made the folder, no result's path leads out of the root.
            if not source.name or source.is_absolute() or ".." in source.parts:
                return None
            return Claim(source, job / name, others - {name})
    for current, _folders, files in os.walk(job / INPUT):
        for name in files:
            path = Path(current, name)
            return Claim(PurePosixPath(path.relative_to(job / INPUT)), path, others - {INPUT})
    return None


def without_empty(folders: Sequence[Path]) -> list[Path]:
    """Those of *folders* that hold an input; the others are removed."""
    for folder in folders:
        if read_claim(folder) is None:
            discard_empty(folder)
    return [folder for folder in folders if folder.exists()]


def discard_empty(job: Path) -> None:
    """Remove the folder *job* unless it holds an input: a claim that never came to be.

    What was made of the input may be there: a power cut can keep that, and lose the claim.
    """
    for current, _folders, files in os.walk(job / INPUT, topdown=False):
        if files:
            return
        Path(current).rmdir()
    with contextlib.suppress(FileNotFoundError):
        if not any(name.startswith(_FLAT) for name in os.listdir(job)):  # noqa: PTH208 - hot path
            durable.remove_tree(job)
