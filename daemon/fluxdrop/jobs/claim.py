"""Claim a file: one rename from the inbox into a folder of the job's own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fluxdrop import failpoints
from fluxdrop.files import durable
from fluxdrop.files.folders import Folders, open_folder, rename_new
from fluxdrop.files.regular import is_file_error
from fluxdrop.files.transient import is_transient
from fluxdrop.jobs.input_state import InputState
from fluxdrop.jobs.job_id import NEW_JOB_ID, new_job_id
from fluxdrop.logs import get_logger

log = get_logger("fluxdrop.intake")

FAULT = "fault"
"""The file that says why the job has to fail (`fluxdrop.jobs.fault`)."""
SOURCE = "source"
"""The file with the input's path below the inbox, where that is too long for the input's name."""
_INPUT = "input"
_INPUT_PREFIX = f"{_INPUT}="
_INPUT_NAME = re.compile(rf"input(?:@({NEW_JOB_ID}))?=(.*)", re.DOTALL)
"""An input's name: optionally the job's id, then the input's escaped path or the path's digest."""
_MAX_NAME_BYTES = 255
_MAX_SOURCE_BYTES = 1 << 16


class Claim(NamedTuple):
    """What a job's folder holds."""

    source: PurePosixPath
    """The path that the input had below the inbox."""
    input: Path
    others: frozenset[str]
    """The names of the other files in the folder."""


class NewJob(NamedTuple):
    """A job's folder, and its claim if that is known and need not be read from the folder."""

    folder: Path
    claim: Claim | None = None
    state: InputState | None = None
    """The state in which the input was taken, if that is known."""


def claim(
    inbox: Folders,
    work: Path,
    source: str,
    is_same: Callable[[os.stat_result], bool],
    fault: str = "",
    reuse_folder: Callable[[Path], bool] = lambda _folder: False,
) -> NewJob | None:
    """Move a file from the inbox into a new job's folder in *work*.

    The folder's name is the job's id, and the input's name in it gives its path below the inbox. So the
    one rename is all that has to be on the disk, whatever happens next.

    Args:
        inbox: The folders of the inbox.
        work: The folder of the jobs' folders.
        source: The file's path below the inbox.
        is_same: Whether the file with a status is the one to claim.
        fault: Why the job has to fail; written to the folder before the rename. Empty for no fault.
        reuse_folder: Rename an emptied folder to the new path (`FolderPool.reuse_folder`); False if there is none,
            and a new folder is made. Not used for a job with a fault.

    Returns:
        The job; None if the file is gone or another file has its name.

    Raises:
        OSError: The file cannot be moved.
    """
    folder, _, name = source.rpartition("/")
    job = work / new_job_id()
    try:
        folder_fd = inbox.fd(folder)
        target = _used_place(job, source, reuse_folder) if not fault else None
        target = target or make_place(job, source)
        if fault:
            # On the disk before the input: if a power cut kept the input alone, an incomplete file would be done.
            durable.write(job / FAULT, fault.encode())
        if not is_same(os.stat(name, dir_fd=folder_fd, follow_symlinks=False)):
            durable.remove_tree(job)
            return None
        failpoints.reach("claim-folder-made")
        os.rename(name, target, src_dir_fd=folder_fd)
        failpoints.reach("claim-renamed")
        status = os.lstat(target)
        if not stat.S_ISREG(status.st_mode):
            # This is not a claim; `discard_unclaimed` moves it aside.
            return NewJob(job)
        if not is_same(status) and _give_back(target, name, folder_fd):
            return None
        others = {FAULT} if fault else set()
        # A path with a digest for its name is longer than that.
        if not target.name.endswith(_escaped(source)):
            others.add(SOURCE)
        state = InputState(status.st_size, status.st_mtime_ns)
        return NewJob(job, Claim(PurePosixPath(source), target, frozenset(others)), state)
    except FileNotFoundError:
        _remove_unclaimed(job)
        return None
    except OSError:
        _remove_unclaimed(job)
        raise


def _give_back(target: Path, name: str, folder: int) -> bool:
    """Rename *target* back to *name* in the open *folder*; return whether that was possible.

    It is the wrong file: it took the name just before the rename.
    """
    try:
        rename_new(str(target), name, None, folder)
    except OSError:
        # A third file has the name, or the folder is gone. The claimed file is done as it is.
        return False
    durable.remove_tree(target.parent)
    return True


def _used_place(job: Path, source: str, reuse_folder: Callable[[Path], bool]) -> Path | None:
    """Do what `make_place` does with a used folder; return None if there is none or the name is too long.

    The input's name contains the job's id here: a power cut may keep the rename of the input into the
    folder and lose the rename of the folder itself.
    """
    name = f"{_INPUT}@{job.name}={_escaped(source)}"
    return job / name if len(os.fsencode(name)) <= _MAX_NAME_BYTES and reuse_folder(job) else None


def make_place(job: Path, source: str) -> Path:
    """Create the folder *job* and return the path for its input, which has the path *source* in the inbox."""
    job.mkdir()
    target = place(job, source)
    if target.name != _escaped_name(source):
        # On the disk before the input, like the fault.
        durable.write(job / SOURCE, os.fsencode(source))
    return target


def place(job: Path, source: str) -> Path:
    """Return the path in the folder *job* of the input that has the path *source* below the inbox.

    The input lies directly in the folder, so that no folder of another user can be on the way to it.
    """
    name = _escaped_name(source)
    if len(os.fsencode(name)) > _MAX_NAME_BYTES:
        name = _digest_name(os.fsencode(source))
    return job / name


def _escaped_name(source: str) -> str:
    return _INPUT_PREFIX + _escaped(source)


def _escaped(source: str) -> str:
    return source.replace("%", "%25").replace("/", "%2F")


def _digest_name(source: bytes) -> str:
    return _INPUT_PREFIX + hashlib.sha256(source).hexdigest()


def read_claim(job: Path) -> Claim | None:
    """Read what the folder *job* holds; return None unless exactly one regular file is its input.

    If the input is a folder, which took the file's name just before the claim, it is not opened.
    """
    try:
        others = frozenset(os.listdir(job))  # noqa: PTH208 - hot path
    except (FileNotFoundError, NotADirectoryError):
        return None
    inputs = [name for name in others if is_input(name)]
    if len(inputs) != 1 or not _INPUT_NAME.fullmatch(inputs[0]):
        return None
    (name,) = inputs
    source = _source(job, name, others)
    if source is None or not is_below_inbox(source):
        return None
    try:
        if not stat.S_ISREG(os.lstat(job / name).st_mode):
            return None
    except FileNotFoundError:
        return None
    return Claim(source, job / name, others - {name})


def is_below_inbox(source: PurePosixPath) -> bool:
    """Return whether *source* is a path below inbox/.

    If so, the path of its result does not lead out of the root, whoever made the job's folder or the
    record.
    """
    return bool(source.name) and not source.is_absolute() and ".." not in source.parts


def is_input(name: str) -> bool:
    """Return whether *name* in a job's folder is that of an input, of an earlier fluxdrop's included."""
    return name == _INPUT or name.startswith((_INPUT_PREFIX, f"{_INPUT}@"))


def job_of(claim: Claim) -> str | None:
    """Return the job id in the input's name; None if the folder was not used before and there is none."""
    match = _INPUT_NAME.fullmatch(claim.input.name)
    return match[1] if match else None


def _source(job: Path, name: str, others: frozenset[str]) -> PurePosixPath | None:
    if SOURCE not in others:
        match = _INPUT_NAME.fullmatch(name)
        return PurePosixPath(match[2].replace("%2F", "/").replace("%25", "%")) if match else None
    try:
        source = durable.read_own(job / SOURCE, _MAX_SOURCE_BYTES)
    except OSError as error:
        if is_transient(error) and not is_file_error(error):
            raise
        return None
    if name != _digest_name(source) or b"\0" in source:
        return None
    return PurePosixPath(os.fsdecode(source))


def finish_rename(inbox: Path, claim: Claim) -> None:
    """Remove the name in *inbox* that the file of *claim* still has there.

    A filesystem that logs the two names of a rename apart can keep both after a power cut. The file
    would then be claimed again.
    """
    # Nobody else can link this file to this name, because its other name is in .fluxdrop/.
    remove_name(inbox, claim.source, claim.input.lstat())


def remove_name(
    inbox: Path, source: PurePosixPath, file: os.stat_result, kept: Path | None = None
) -> bool:
    """Remove the name *source* in *inbox* if it is one of *file*; return whether it was.

    Args:
        inbox: The inbox.
        source: A path below it; no symlink on the way is followed.
        file: The status of the file.
        kept: Where the name is moved to, if nothing has that path.
    """
    if not is_below_inbox(source):
        return False
    folder = "" if source.parent == PurePosixPath() else str(source.parent)
    try:
        fd = open_folder(inbox, folder)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        # The owner may have closed the folder. The daemon must start nevertheless; it claims nothing there.
        return False
    try:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            found = os.stat(source.name, dir_fd=fd, follow_symlinks=False)
            if not os.path.samestat(found, file):
                return False
            if kept is None or os.path.lexists(kept):
                os.unlink(source.name, dir_fd=fd)
            else:
                kept.parent.mkdir(mode=0o700, exist_ok=True)
                os.rename(source.name, kept, src_dir_fd=fd)
            return True
    finally:
        os.close(fd)
    return False


def discard_unclaimed(job: Path, refused: Path) -> None:
    """Remove the folder *job*, whose claim cannot be read because it was never finished.

    If anything in it has the name of an input, the whole folder is moved to *refused* instead, and
    logged. The folder may contain files made from the input: a power cut can keep them and lose the
    claim.
    """
    try:
        names = os.listdir(job)  # noqa: PTH208 - hot path
    except (FileNotFoundError, NotADirectoryError):
        return
    if not any(map(is_input, names)):
        durable.remove_tree(job)
        return
    refused.mkdir(mode=0o700, exist_ok=True)
    kept = refused / (new_job_id() if os.path.lexists(refused / job.name) else job.name)
    job.rename(kept)
    reason = "its input is not a regular file, or has no path below inbox/"
    log.warning("job set aside", job=job.name, to=str(kept), reason=reason)


def _remove_unclaimed(job: Path) -> None:
    """Remove the folder *job* unless it contains something with the name of an input."""
    with contextlib.suppress(FileNotFoundError):
        if not any(map(is_input, os.listdir(job))):  # noqa: PTH208 - hot path
            durable.remove_tree(job)
