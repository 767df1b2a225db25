"""Plans: which names each job's files get, decided before the first of them is given.

All plans are lines of one file, as a file for each job costs more than all else that is written of
it. A plan holds from the moment that its line is on the disk until its job's folder is gone.
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
from fluxdrop.publish.places import KEPT

_TOPS = tuple(f"{name}/" for name in ("outputs", "generated_images", "preprocessed_images"))
_KEPT = f"{STATE}/{KEPT}/"


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which names each file gets: pairs of a path below the job's folder and one below the root."""

    links: list[tuple[bytes, str]]
    """The first is in bytes, as an input's name need not be UTF-8."""
    record: str
    """The record's path below the root."""


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    job: str
    plan: Plan | None
    """None takes back what an earlier line says."""


_DECODER: msgspec.json.Decoder[_Line] = decoder(_Line)


class Plans:
    """The plans in the file *path*, without those for jobs that are not among *job_ids*.

    Only one process writes the file. Each change raises OSError when the disk is in the way, and may
    then be tried again.
    """

    def __init__(self, path: Path, job_ids: Iterable[str]) -> None:
        self._path = path
        self._size = 0
        self._plans: dict[str, Plan] = {}
        if not path.exists():
            os.close(durable.open_own(path, os.O_WRONLY | os.O_CREAT))
            durable.sync_folder(path.parent)
        # A line that a power cut tore is the last one: no name was given by it.
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            for data in re.findall(rb".*\n", durable.read_own(path)):
                line = _DECODER.decode(data)
                # Of a careless restore or of another's making: the job is done anew.
                if line.plan is None or _is_possible(line.plan):
                    self._enter(line)
                self._size += len(data)
        self._keep(set(job_ids))

    def folders(self) -> set[str]:
        """Where the files of all plans get their names, as paths below the root."""
        paths = (
            path
            for plan in self._plans.values()
            for path in (plan.record, *(t for _, t in plan.links))
        )
        return {path.rpartition("/")[0] for path in paths}

    def get(self, job_id: str) -> Plan | None:
        """The plan for the job *job_id*, if its names were decided."""
        return self._plans.get(job_id)

    def decide(self, plans: Mapping[str, Plan]) -> None:
        """Have each job get the names of its plan, whatever happens from now on."""
        self._write([_Line(job_id, plan) for job_id, plan in plans.items()])

    def take_back(self, job_id: str) -> None:
        """The plan for *job_id* is void."""
        self._write([_Line(job_id, None)])

    def fulfilled(self, job_ids: Iterable[str]) -> None:
        """The jobs *job_ids* are done, and their folders gone. Never raises: where the disk is in the way, their
        lines stay, and say nothing of jobs that are gone.
        """
        with suppress(OSError):
            self._keep(self._plans.keys() - set(job_ids))

    def keep(self, job_ids: Iterable[str]) -> None:
        """All plans but those for *job_ids* are of jobs that are gone. Never raises."""
        self.fulfilled(self._plans.keys() - set(job_ids))

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
        data = b"".join(map(_encoded, lines))
        with os.fdopen(self._opened(os.O_RDWR), "r+b") as file:
            # Behind the last whole line may lie what an earlier try could not end.
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
        try:
            return durable.open_own(self._path, flags)
        except OSError as error:
            if error.errno not in durable.NOT_REGULAR:
                raise
        # Somebody else writes in .fluxdrop/, where all share everything.
        lines = [_encoded(_Line(job_id, plan)) for job_id, plan in self._plans.items()]
        durable.renew_own(self._path, b"".join(lines))
        self._size = sum(map(len, lines))
        return durable.open_own(self._path, flags)


def _is_possible(plan: Plan) -> bool:
    """Whether *plan* gives names below the root's public folders alone, or an input one among those that are kept,
    to what is in the job's folder."""
    targets = [plan.record, *(target for _, target in plan.links)]
    sources = [os.fsdecode(source) for source, _ in plan.links]
    return (
        all(map(_is_path, (*targets, *sources)))
        and plan.record.startswith(_TOPS)
        and all(target.startswith((*_TOPS, _KEPT)) for target in targets)
    )


def _is_path(path: str) -> bool:
    return "\0" not in path and not {"", ".", ".."} & set(path.split("/"))


def _encoded(line: _Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"
