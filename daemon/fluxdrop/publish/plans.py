"""Plans: under which names each job's files are published, written before the first of them is.

All plans are lines of one file, as a file for each job would cost more than everything else that is written of the
job. A plan holds from the moment when its line is on the disk until its job's folder is gone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from fluxdrop import failpoints
from fluxdrop.decoders import decoder
from fluxdrop.files import durable
from fluxdrop.files.folders import STATE
from fluxdrop.files.layout import FAILED
from fluxdrop.publish.places import KEPT

_TOPS = tuple(f"{name}/" for name in ("outputs", "generated_images", "preprocessed_images"))
_KEPT = f"{STATE}/{KEPT}/"
_FAILURES = f"outputs/{FAILED}/"


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Under which names a job's files are published."""

    links: list[tuple[bytes, str]]
    """For each file, its path below the job's folder and its new path below the root.

    The first is in bytes, as the name of an input need not be UTF-8.
    """
    record: str
    """The path of the record below the root."""

    @property
    def has_failed(self) -> bool:
        """Return whether it is the plan for a job that failed."""
        return self.record.startswith(_FAILURES)


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of the file."""

    job: str
    """The job's id."""
    plan: Plan | None
    """None makes the plan of an earlier line void."""


_DECODER: msgspec.json.Decoder[_Line] = decoder(_Line)


class Plans:
    """The plans in the file *path*. One thread owns it, and no other process writes the file.

    Each change raises OSError when the disk is full or not available, and may then be tried again.
    """

    def __init__(self, path: Path, job_ids: Iterable[str]) -> None:
        """Read the plans for *job_ids* and forget all others. Raises OSError."""
        self._path = path
        self._size = 0
        self._plans: dict[str, Plan] = {}
        if not path.exists():
            os.close(durable.open_own(path, os.O_WRONLY | os.O_CREAT))
            durable.sync_folder(path.parent)
        # A line that a power cut tore is the last one: nothing was published by it.
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            for data in re.findall(rb".*\n", durable.read_own(path)):
                line = _DECODER.decode(data)
                # A plan that is not allowed comes from a careless restore or from somebody else: its job is done anew.
                if line.plan is None or _is_allowed(line.plan):
                    self._enter(line)
                self._size += len(data)
        self._keep(set(job_ids))

    def folders(self) -> set[str]:
        """Return the folders into which all plans publish, as paths below the root."""
        paths = (
            path
            for plan in self._plans.values()
            for path in (plan.record, *(t for _, t in plan.links))
        )
        return {path.rpartition("/")[0] for path in paths}

    def get(self, job_id: str) -> Plan | None:
        """Return the plan for the job *job_id*, or None."""
        return self._plans.get(job_id)

    def decide(self, plans: Mapping[str, Plan]) -> None:
        """Write *plans*, by the ids of their jobs, durably: whatever happens from now on, they are carried out."""
        self._write([_Line(job_id, plan) for job_id, plan in plans.items()])

    def void(self, job_id: str) -> None:
        """Make the plan for *job_id* void, durably."""
        self._write([_Line(job_id, None)])

    def forget(self, job_ids: Iterable[str]) -> None:
        """Forget the plans for *job_ids*, whose folders are gone. Never raises.

        While the disk is full or not available, their lines stay in the file. They have no effect then, as the jobs
        are gone.
        """
        with suppress(OSError):
            self._keep(self._plans.keys() - set(job_ids))

    def forget_all_but(self, job_ids: Iterable[str]) -> None:
        """Forget all plans but those for *job_ids*: the other jobs are gone. Never raises."""
        self.forget(self._plans.keys() - set(job_ids))

    def _enter(self, line: _Line) -> None:
        if line.plan is None:
            self._plans.pop(line.job, None)
        else:
            self._plans[line.job] = line.plan

    def _keep(self, job_ids: set[str]) -> None:
        self._plans = {job_id: self._plans[job_id] for job_id in self._plans.keys() & job_ids}
        if not self._plans:
            os.close(self._opened(os.O_WRONLY | os.O_TRUNC))
            self._size = 0

    def _write(self, lines: list[_Line]) -> None:
        """Append *lines* to the file, durably, and enter them. Raises OSError."""
        data = b"".join(map(_encoded, lines))
        with os.fdopen(self._opened(os.O_RDWR), "r+b") as file:
            # Behind the last whole line may lie what an earlier try wrote of one.
            file.truncate(self._size)
            file.seek(self._size)
            file.write(data)
            file.flush()
            failpoints.reach("plan-written")
            durable.wait_for(file.fileno())
        self._size += len(data)
        for line in lines:
            self._enter(line)

    def _opened(self, flags: int) -> int:
        """Open the file with *flags*; make it anew if something else has its name. Raises OSError."""
        try:
            return durable.open_own(self._path, flags)
        except OSError as error:
            if error.errno not in durable.NOT_REGULAR:
                raise
        # Somebody else may write in .fluxdrop/ where all users share everything.
        lines = [_encoded(_Line(job_id, plan)) for job_id, plan in self._plans.items()]
        durable.renew_own(self._path, b"".join(lines))
        self._size = sum(map(len, lines))
        return durable.open_own(self._path, flags)


def _is_allowed(plan: Plan) -> bool:
    """Return whether *plan* publishes files of the job's folder only, and only below the folders for that.

    Those are the root's public folders and, for inputs, .fluxdrop/kept/.
    """
    targets = [plan.record, *(target for _, target in plan.links)]
    sources = [os.fsdecode(source) for source, _ in plan.links]
    return (
        all(map(_is_path, (*targets, *sources)))
        and plan.record.startswith(_TOPS)
        and all(target.startswith((*_TOPS, _KEPT)) for target in targets)
    )


def _is_path(path: str) -> bool:
    """Return whether *path* is a relative path that leads upwards nowhere."""
    return "\0" not in path and not {"", ".", ".."} & set(path.split("/"))


def _encoded(line: _Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"
