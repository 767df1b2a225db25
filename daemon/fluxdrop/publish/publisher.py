"""Publishing: a job's files get their names for all to see, durably, once, over nobody else's.

First everything is on the disk in the job's folder; then a plan decides the names; then the
names are given as hard links, the record's last; then the job's folder goes. After a kill anywhere
in between, `perform` with the same plan ends in the same state. A job's folder is emptied only when
the index says, durably, that the job has ended: whatever a power cut leaves of it can go.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from fluxdrop import durable, faults
from fluxdrop.folders import Folders
from fluxdrop.jobs.job import RECORD, Job
from fluxdrop.jobs.store import Row, Store
from fluxdrop.layout import Root
from fluxdrop.logs import get_logger
from fluxdrop.publish import links
from fluxdrop.publish.names import NameChooser, plain
from fluxdrop.publish.plans import Plan, Plans
from fluxdrop.publish.result import Failure, Record, Result, decode, encode
from fluxdrop.turns import waiting

log = get_logger("fluxdrop.publish")

# What a filesystem says of a name that it does not take, whatever is free.
_REFUSED = {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG}
_MOST_REFUSALS = 2
_MOST_OPEN = 64


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

    def __init__(
        self, root: Root, store: Store, moved_on: Callable[[], None] = lambda: None
    ) -> None:
        """*moved_on* is called now and then while a large file is copied."""
        self._root = root
        self._store = store
        self._moved_on = moved_on
        self._folders = {
            root.outputs.name: root.open_outputs(_MOST_OPEN),
            root.generated.name: Folders(root.generated, _MOST_OPEN),
            root.preprocessed.name: Folders(root.preprocessed, _MOST_OPEN),
        }
        self._chooser = NameChooser()
        self._refused: Counter[str] = Counter()
        """How many times a filesystem refused the name of each job."""
        self._plans = Plans(root.plans, (path.name for path in root.work.iterdir()))
        self._unswept = self._plans.folders()
        """Where a killed daemon may have left a copy that was not whole."""

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
            durable.sync_all(files, folders, _is_readable)
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
        try:
            self._sweep()
            return self._perform(planned, records)
        finally:
            self._close()

    def _close(self) -> None:
        """Keep no folder open for long: somebody may move it elsewhere."""
        for folders in self._folders.values():
            folders.close()

    def _sweep(self) -> None:
        while self._unswept:
            path = next(iter(self._unswept))
            with suppress(FileNotFoundError, NotADirectoryError):
                durable.sweep(self._fd(path))
            self._unswept.remove(path)

    def _perform(
        self, planned: Sequence[tuple[Path, Plan]], records: Mapping[Path, Record]
    ) -> Published:
        done: list[tuple[Path, Record, str]] = []
        void = []
        parents: set[str] = set()
        for folder, plan in planned:
            record = records.get(folder) or decode((folder / RECORD).read_bytes())
            try:
                parents.update(self._link(folder, plan))
            except links.NameTakenError:
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
            self._sync(parents)
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
            try:
                self._take_back(folder, plan)
            finally:
                self._close()

    def planned(self, folder: Path) -> Plan | None:
        """The plan for the job in *folder*, if its names were decided. None where its record is gone: then
        they were all given."""
        plan = self._plans.get(folder.name)
        return plan if plan is not None and (folder / RECORD).exists() else None

    def forget_gone(self, folders: Sequence[Path]) -> None:
        """Forget the plans for jobs that are not in *folders*, which are all there are."""
        self._plans.keep(folder.name for folder in folders)

    def without_ended(self, folders: Sequence[Path]) -> list[Path]:
        """Those of *folders* whose jobs have not ended by the index. The others, which a start finds where they
        were not removed or a power cut brought them back, are removed."""
        left = []
        for folder in folders:
            row = self._store.get(folder.name)
            if row is None or row.state == "claimed":
                left.append(folder)
            else:
                durable.remove_tree(folder)
        return left

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
        pairs = self._links(folder, plan)
        # A subfolder may be new, and then its own name has to be on the disk as well.
        targets = [*(target for _, target in plan.links), plan.record]
        parents = {parent for target in targets for parent in _parents(target)}
        try:
            try:
                self._give_all(pairs)
            except (FileNotFoundError, NotADirectoryError):
                self._make(parents)
                self._give_all(pairs)
        except (links.NameTakenError, NotADirectoryError) as error:
            self._take_back(folder, plan)
            raise links.NameTakenError(str(error)) from error
        return parents

    def _take_back(self, folder: Path, plan: Plan) -> None:
        for source, target in self._links(folder, plan):
            parent, _, name = target.rpartition("/")
            try:
                links.take_name_back(source, name, self._fd(parent))
            except OSError as error:
                # Nothing has a name that cannot be.
                if error.errno not in {*_REFUSED, errno.ENOTDIR, errno.ENOENT}:
                    raise
        faults.point("names-taken-back")
        self._plans.take_back(folder.name)
        faults.point("plan-void")

    def _links(self, folder: Path, plan: Plan) -> list[tuple[str, str]]:
        """What gets which name by *plan*, the record last."""
        pairs = [*plan.links, (os.fsencode(RECORD), plan.record)]
        return [(f"{folder}/{os.fsdecode(source)}", target) for source, target in pairs]

    def _give_all(self, pairs: Sequence[tuple[str, str]]) -> None:
        to_move = []
        for source, target in pairs:
            parent, _, name = target.rpartition("/")
            if not self._give(source, name, self._fd(parent)):
                to_move.append((source, name, parent))
        for source, name, parent in to_move:
            if os.path.lexists(source):
                links.move_name(source, name, self._fd(parent))

    def _give(self, source: str, name: str, folder: int) -> bool:
        """Give *source* the *name* in the open *folder*; False where it can only be moved, or was
        already."""
        if not _is_plain(source):
            return False
        try:
            links.give_name(source, name, folder, self._moved_on)
            faults.point("name-given")
        except PermissionError:
            # Linux lets nobody link a file of somebody else's that they may not read and write.
            if os.access(source, os.R_OK):
                raise
            return False
        return True

    def _make(self, parents: set[str]) -> None:
        self._close()
        for parent in sorted(parents):
            self._fd(parent, make=True)

    def _sync(self, parents: set[str]) -> None:
        """Wait until the names in *parents* are on the disk."""
        for parent in sorted(parents):
            # Who moved it away meanwhile has the files.
            with suppress(FileNotFoundError, NotADirectoryError):
                durable.sync_open_folder(self._fd(parent))

    def _fd(self, path: str, *, make: bool = False) -> int:
        """The open folder *path*, relative to the root, until the next call."""
        top, _, folder = path.partition("/")
        return self._folders[top].fd(folder, make=make)

    def _discard(self, folder: Path) -> bool:
        """Remove the job's *folder*; whether it is gone from the jobs in hand."""
        try:
            durable.empty_tree(folder)
            faults.point("job-emptied")
            folder.rmdir()
            faults.point("job-discarded")
        except OSError as error:
            # The next start finds it, and in the index that its job has ended.
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


def _is_plain(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_readable(path: Path) -> bool:
    return _is_plain(str(path)) and os.access(path, os.R_OK)


def _is_other_than_folder(path: str) -> bool:
    try:
        return not stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


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
