"""Claiming: one rename from the inbox into the job's own folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fluxdrop import failpoints
from fluxdrop.files import durable
from fluxdrop.files.folders import Folders, open_folder, rename_new
from fluxdrop.files.regular import is_its_own
from fluxdrop.files.transient import is_transient
from fluxdrop.jobs.job_id import NEW_JOB_ID, new_job_id
from fluxdrop.logs import get_logger

log = get_logger("fluxdrop.intake")

FAULT = "fault"
SOURCE = "source"
"""The path below the inbox of an input that has no room for it in its name."""
_INPUT = "input"
_FLAT = f"{_INPUT}="
_TOLD = re.compile(rf"input(?:@({NEW_JOB_ID}))?=(.*)", re.DOTALL)
"""The job that the name of an input tells, and the input's path or the digest of that."""
_LONGEST_NAME = 255
_LONGEST_SOURCE = 1 << 16


class Claim(NamedTuple):
    """What a job's folder holds: *source* is the path that its *input* had below the inbox, *others*
    are the names of what else lies there."""

    source: PurePosixPath
    input: Path
    others: frozenset[str]


class NewJob(NamedTuple):
    """A job's *folder*, and what it holds where that is known already and needs not be read from there."""

    folder: Path
    claim: Claim | None = None


def claim(
    inbox: Folders,
    work: Path,
    source: str,
    is_same: Callable[[os.stat_result], bool],
    fault: str = "",
    give: Callable[[Path], bool] = lambda _folder: False,
) -> NewJob | None:
    """Move *source* (relative to *inbox*) into a new folder of its own in *work* and return that job. A *fault*, why
    it has to fail, is noted there before. The folder is one that was used before, if *give* can make it of one.

    None when the file is gone or, by its status, not the one that is meant. The job is known by its
    folder and its source by the input's path inside it, so that the one rename says all, whatever
    happens next.
    """
    folder, _, name = source.rpartition("/")
    job = work / new_job_id()
    try:
        folder_fd = inbox.fd(folder)
        target = _used_place(job, source, give) if not fault else None
        target = target or make_place(job, source)
        if fault:
            # On the disk before the input: a power cut must not keep that alone, as what is not whole would be done.
            durable.write(job / FAULT, fault.encode())
        if not is_same(os.stat(name, dir_fd=folder_fd, follow_symlinks=False)):
            durable.remove_tree(job)
            return None
        failpoints.reach("claim-folder-made")
        os.rename(name, target, src_dir_fd=folder_fd)
        failpoints.reach("claim-renamed")
        status = target.lstat()
        if not stat.S_ISREG(status.st_mode):
            # It is no claim, and is set aside as that.
            return NewJob(job)
        if not is_same(status) and _is_given_back(target, name, folder_fd):
            return None
        others = {FAULT} if fault else set()
        if target.name == _digest(os.fsencode(source)):
            others.add(SOURCE)
        return NewJob(job, Claim(PurePosixPath(source), target, frozenset(others)))
    except FileNotFoundError:
        _remove_unclaimed(job)
        return None
    except OSError:
        _remove_unclaimed(job)
        raise


def _is_given_back(target: Path, name: str, folder: int) -> bool:
    """Whether the file that was claimed as *target* could be given its *name* in the open *folder* back: another one
    took it just before the rename."""
    try:
        rename_new(str(target), name, None, folder)
    except OSError:
        # A third one has the name, or the folder is gone. It can only be done as it is.
        return False
    durable.remove_tree(target.parent)
    return True


def _used_place(job: Path, source: str, give: Callable[[Path], bool]) -> Path | None:
    """`make_place` in a folder that was used before; None where there is none. A power cut may keep the input's rename
    into that and lose the folder's own, so the input tells its job."""
    name = f"{_INPUT}@{job.name}={_escaped(source)}"
    return job / name if len(os.fsencode(name)) <= _LONGEST_NAME and give(job) else None


def make_place(job: Path, source: str) -> Path:
    """Make the new folder *job*, and return where in it the input is to lie that had the path *source* below
    the inbox. Raises OSError."""
    job.mkdir()
    target = place(job, source)
    if target.name != _flat(source):
        # On the disk before the input, like its fault.
        durable.write(job / SOURCE, os.fsencode(source))
    return target


def place(job: Path, source: str) -> Path:
    """Where in the folder *job* the input lies that had the path *source* below the inbox.

    Right in the folder, so that no way to it leads through a folder that may be another's.
    """
    name = _flat(source)
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = _digest(os.fsencode(source))
    return job / name


def _flat(source: str) -> str:
    return _FLAT + _escaped(source)


def _escaped(source: str) -> str:
    return source.replace("%", "%25").replace("/", "%2F")


def _digest(source: bytes) -> str:
    return _FLAT + hashlib.sha256(source).hexdigest()


def read_claim(job: Path) -> Claim | None:
    """What the folder *job* holds; None when there is no input in it, or anything but one regular file as that.

    Nothing below it is looked at: what was claimed may be a folder that took the file's name just then.
    """
    try:
        others = frozenset(os.listdir(job))  # noqa: PTH208 - hot path
    except (FileNotFoundError, NotADirectoryError):
        return None
    inputs = [name for name in others if is_input(name)]
    if len(inputs) != 1 or not _TOLD.fullmatch(inputs[0]):
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
    """Return whether *source* is a path below inbox/. Then the path of its result does not lead out of the root,
    whoever made the job's folder or the record."""
    return bool(source.name) and not source.is_absolute() and ".." not in source.parts


def is_input(name: str) -> bool:
    """Whether what has the *name* in a job's folder is its input, or was in an earlier fluxdrop."""
    return name == _INPUT or name.startswith((_FLAT, f"{_INPUT}@"))


def job_of(claim: Claim) -> str | None:
    """The job id that the name of the input of *claim* tells, in a folder that was used before; else None."""
    told = _TOLD.fullmatch(claim.input.name)
    return told[1] if told else None


def _source(job: Path, name: str, others: frozenset[str]) -> PurePosixPath | None:
    if SOURCE not in others:
        told = _TOLD.fullmatch(name)
        return PurePosixPath(told[2].replace("%2F", "/").replace("%25", "%")) if told else None
    try:
        source = durable.read_own(job / SOURCE, _LONGEST_SOURCE)
    except OSError as error:
        if is_transient(error) and not is_its_own(error):
            raise
        return None
    if name != _digest(source) or b"\0" in source:
        return None
    return PurePosixPath(os.fsdecode(source))


def without_unclaimed(folders: Sequence[Path], refused: Path) -> list[Path]:
    """Those of *folders* that hold an input; the others are discarded, as `discard_unclaimed` does."""
    left = []
    for folder in folders:
        if read_claim(folder) is not None:
            left.append(folder)
            continue
        try:
            discard_unclaimed(folder, refused)
        except OSError as error:
            if is_transient(error):
                raise
            log.error("left alone", job=folder.name, reason=error.strerror)
    return left


def finish_rename(inbox: Path, job: Path) -> None:
    """Take the name in *inbox* from a file that is claimed in *job*: a power cut can keep both names of a rename, on
    filesystems that log them apart, and the file would be claimed once more. Raises OSError."""
    claim = read_claim(job)
    if claim is None:
        return
    folder, name = claim.source.parent, claim.source.name
    try:
        fd = open_folder(inbox, "" if folder == PurePosixPath() else str(folder))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        # A folder that its owner closed must not keep the daemon from starting; nothing is claimed there either.
        return
    try:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            twin = os.stat(name, dir_fd=fd, follow_symlinks=False)
            # Nobody else can give this very file this very name: its other one is in .fluxdrop/.
            if os.path.samestat(twin, claim.input.lstat()):
                os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)


def discard_unclaimed(job: Path, refused: Path) -> None:
    """Remove the folder *job*, in which no claim can be read: one that never came to be. What has anything in
    the place of an input is moved whole into the folder *refused*, with a line in the log.

    What was made of the input may be there: a power cut can keep that, and lose the claim. Raises OSError.
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
    reason = "what it has as its input is no file, or tells no path below inbox/"
    log.warning("job set aside", job=job.name, to=str(kept), reason=reason)


def _remove_unclaimed(job: Path) -> None:
    """Remove the folder *job* unless anything has the place of an input in it."""
    with contextlib.suppress(FileNotFoundError):
        if not any(map(is_input, os.listdir(job))):  # noqa: PTH208 - hot path
            durable.remove_tree(job)
