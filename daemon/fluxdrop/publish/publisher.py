"""Publishing: a job's files get their names for all to see, durably, once, over nobody else's.

First everything is on the disk in the job's folder; then a plan decides the names; then the
names are given as hard links, the record's last; then the job's folder goes. After a kill anywhere
in between, `perform` with the same plan ends in the same state. A job's folder goes by one rename
out of work/, so that it is there whole or not at all; what it was is removed after that.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from fluxdrop import durable, faults
from fluxdrop.jobs.job import RECORD, Job
from fluxdrop.jobs.spares import Spares
from fluxdrop.jobs.store import Row, Store
from fluxdrop.layout import Root
from fluxdrop.logs import get_logger
from fluxdrop.publish.names import NameChooser, plain
from fluxdrop.publish.plans import Plan, Plans
from fluxdrop.publish.result import Failure, Record, Result, decode, encode
from fluxdrop.turns import waiting

log = get_logger("fluxdrop.publish")

# What a filesystem says of a name that it does not take, whatever is free.
_REFUSED = {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG}
_MOST_REFUSALS = 2


class Finished(NamedTuple):
    """A job that has come to its end, but for its names.

    *files* are the job's files, each with what becomes of a NAME to make its path below the root;
    *build* makes the record when the NAME is known.
    """

    job: Job
    files: Sequence[tuple[Path, Callable[[str], str]]]
    record_path: Callable[[str], str]
    build: Callable[[str], Record]
    has_failed: bool = False
    """Whether the job failed: then its NAME ends as the source's does."""


class Published(NamedTuple):
    """What came of a batch: the records with their paths below the root, and the job folders whose
    plan was void because a file came in the way; those are to be published again."""

    records: list[tuple[Record, str]]
    void: list[Path]


class Publisher:
    """Gives names. One thread owns a publisher, and no other publisher serves its root."""

    def __init__(self, root: Root, store: Store) -> None:
        self._root = root
        self._store = store
        self._chooser = NameChooser()
        self._refused: Counter[str] = Counter()
        """How many times a filesystem refused the name of each job."""
        self._plans = Plans(root.plans, (path.name for path in root.work.iterdir()))
        self.spares = Spares(root.spares)
        """The folders of what was published."""

    def publish(self, batch: Sequence[Finished]) -> Published:
        """Publish all of *batch*, with one wait for the disk a step."""
        names = []
        # Most files of a batch are from the same few folders.
        is_other = cache(_is_other_than_folder)
        planned = []
        fresh = []
        records: dict[Path, Record] = {}
        try:
            for finished in batch:
                plan = self.planned(finished.job.folder)
                if plan is None:
                    name = self._choose(finished, is_other)
                    names.append(name)
                    record = records[finished.job.folder] = finished.build(name)
                    plan = _prepare(finished, name, record)
                    fresh.append((finished, plan))
                planned.append((finished.job.folder, plan))
            self._decide(fresh)
            return self.perform(planned, records)
        finally:
            for name in names:
                self._chooser.release(name)

    def _decide(self, fresh: Sequence[tuple[Finished, Plan]]) -> None:
        files = {path for finished, _ in fresh for path, _ in finished.files}
        files.update(finished.job.record for finished, _ in fresh)
        folders = [finished.job.folder for finished, _ in fresh]
        # One wait for a turn, too.
        with waiting():
            # An input that the daemon may not read, or that is no file, is only given back.
            if durable.sync_all(files, folders, _is_readable):
                self.spares.settle()
            faults.point("files-synced")
            self._plans.decide({finished.job.id: plan for finished, plan in fresh})
            faults.point("plans-synced")

    def perform(
        self,
        planned: Sequence[tuple[Path, Plan]],
        records: Mapping[Path, Record] = MappingProxyType({}),
    ) -> Published:
        """Give the names of each plan, enter the jobs in the index and remove their folders; what is
        not among *records*, by the jobs' folders, is read from there."""
        done: list[tuple[Path, Record, str]] = []
        void = []
        parents: set[str] = set()
        for folder, plan in planned:
            record = records.get(folder) or decode((folder / RECORD).read_bytes())
            try:
                parents.update(self._link(folder, plan))
            except durable.NameTakenError:
                void.append(folder)
                continue
            except OSError as error:
                if error.errno not in _REFUSED or self._refused[folder.name] >= _MOST_REFUSALS:
                    raise
                log.warning("name refused", job=folder.name, reason=error.strerror)
                self.withdraw(folder)
                void.append(folder)
                continue
            done.append((folder, record, plan.record))
        rows = [row_of(record, path) for _, record, path in done]
        with waiting():
            durable.sync_all([], [self._root.path / parent for parent in sorted(parents)])
            faults.point("folders-synced")
            self._store.finished(rows)
            faults.point("index-told")
        self._plans.fulfilled([folder.name for folder, _, _ in done if self._discard(folder)])
        for folder, _, _ in done:
            self._refused.pop(folder.name, None)
        return Published([(record, path) for _, record, path in done], void)

    def withdraw(self, folder: Path) -> None:
        """Take back what names the job in *folder* was given, if any; when it is published after that it gets a
        NAME that more filesystems take."""
        self._refused[folder.name] += 1
        plan = self.planned(folder)
        if plan is not None:
            self._take_back(folder, plan)

    def planned(self, folder: Path) -> Plan | None:
        """The plan for the job in *folder*, if its names were decided."""
        return self._plans.get(folder.name)

    def _choose(self, finished: Finished, is_other: Callable[[str], bool]) -> str:
        makers = [finished.record_path, *(make for _, make in finished.files)]

        def is_taken(name: str) -> bool:
            return any(os.path.lexists(f"{self._root.path}/{make(name)}") for make in makers)

        def is_blocked(folder: str) -> bool:
            paths = {make(f"{folder}/_").rpartition("/")[0] for make in makers}
            return any(is_other(f"{self._root.path}/{path}") for path in paths)

        job = finished.job
        source = job.source
        if self._refused[job.id]:
            source = plain(source if self._refused[job.id] == 1 else job.id)
            job.warnings.append(f"The filesystem does not take the name {job.source}.")
        return self._chooser.choose(source, is_taken, is_blocked, keeps_suffix=finished.has_failed)

    def _link(self, folder: Path, plan: Plan) -> set[str]:
        """Give the names of *plan*; return the folders that hold them, relative to the root."""
        links = self._links(folder, plan)
        # A subfolder may be new, and then its own name has to be on the disk as well.
        targets = [*(target for _, target in plan.links), plan.record]
        parents = {parent for target in targets for parent in _parents(target)}
        try:
            try:
                _give_all(links)
            except (FileNotFoundError, NotADirectoryError):
                for parent in sorted(parents):
                    _make(f"{self._root.path}/{parent}")
                _give_all(links)
        except durable.NameTakenError:
            self._take_back(folder, plan)
            raise
        return parents

    def _take_back(self, folder: Path, plan: Plan) -> None:
        for source, target in self._links(folder, plan):
            try:
                durable.take_name_back(Path(source), Path(target))
            except OSError as error:
                # Nothing has a name that cannot be.
                if error.errno not in {*_REFUSED, errno.ENOTDIR}:
                    raise
        faults.point("names-taken-back")
        self._plans.take_back(folder.name)
        faults.point("plan-void")

    def _links(self, folder: Path, plan: Plan) -> list[tuple[str, str]]:
        """What gets which name by *plan*, the record last."""
        pairs = [*plan.links, (os.fsencode(RECORD), plan.record)]
        return [
            (f"{folder}/{os.fsdecode(source)}", f"{self._root.path}/{target}")
            for source, target in pairs
        ]

    def _discard(self, folder: Path) -> bool:
        """Remove the job's *folder*; whether it is gone from the jobs in hand."""
        try:
            self.spares.discard(folder)
        except OSError as error:
            # The next start finds it, with its plan or among the spares, and comes here again.
            log.warning("not removed", folder=str(folder), reason=error.strerror)
            return not folder.exists()
        return True


def _prepare(finished: Finished, name: str, record: Record) -> Plan:
    job = finished.job
    durable.put(job.record, encode(record))
    faults.point("record-written")
    start = f"{job.folder}/"
    links = [
        (os.fsencode(str(path).removeprefix(start)), make(name)) for path, make in finished.files
    ]
    return Plan(links=links, record=finished.record_path(name))


def _make(folder: str) -> None:
    if not os.path.isdir(folder):  # noqa: PTH112 - hot path
        try:
            Path(folder).mkdir(exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise durable.NameTakenError(folder) from None


def _is_plain(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_readable(path: Path) -> bool:
    return _is_plain(str(path)) and os.access(path, os.R_OK)


def _is_other_than_folder(path: str) -> bool:
    return not os.path.isdir(path) and os.path.lexists(path)  # noqa: PTH112 - hot path


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _give_all(links: Sequence[tuple[str, str]]) -> None:
    to_move = [link for link in links if not _give(*link)]
    for source, target in to_move:
        _move(source, target)


def _give(source: str, target: str) -> bool:
    """Give *source* the name *target*; False where it can only be moved, or was already."""
    if not _is_plain(source):
        return False
    try:
        durable.give_name(source, target)
        faults.point("name-given")
    except PermissionError:
        # Linux lets nobody link a file of somebody else's that they may not read and write.
        if os.access(source, os.R_OK):
            raise
        return False
    return True


def _move(source: str, target: str) -> None:
    if not os.path.lexists(source):
        return
    # Only the daemon that holds the root's lock names files here, so nothing comes in between.
    if os.path.lexists(target):
        raise durable.NameTakenError(target)
    Path(source).rename(target)


def row_of(record: Record, path: str) -> Row:
    """What the index says of *record*, whose JSON lies at *path* below the root."""
    best = record.top[0] if isinstance(record, Result) and record.top else None
    return Row(
        id=record.job_id,
        state="done" if isinstance(record, Result) else "failed",
        kind=record.source.kind,
        source=record.source.file,
        attempts=record.attempts,
        replay_of=record.replay_of,
        created=record.created,
        finished=record.finished,
        record=path,
        label=best.label if best else None,
        probability=best.p if best else None,
        error=record.error.message if isinstance(record, Failure) else None,
        model=record.model.bundle if isinstance(record, Result) else None,
    )
