"""Publishing: a job's files get their names for all to see, durably, once, over nobody else's.

First everything is on the disk in the job's folder; then a plan decides the names; then the
names are given as hard links, the record's last; then the job's folder goes. After a kill anywhere
in between, `perform` with the same plan ends in the same state. A job's folder is emptied only when
the index says, durably, that the job has ended: whatever a power cut leaves of it can go.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from fluxdrop import failpoints
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.io_lock import release_io_lock
from fluxdrop.files.layout import FAILED, Root
from fluxdrop.jobs.claim import is_input
from fluxdrop.jobs.folder_pool import FolderPool, most_spares
from fluxdrop.jobs.job import RECORD
from fluxdrop.jobs.store import Row, Store
from fluxdrop.logs import get_logger
from fluxdrop.publish import links
from fluxdrop.publish.names import NameChooser, plain
from fluxdrop.publish.outcome import Finished, build_record, keep_input
from fluxdrop.publish.places import Places, above
from fluxdrop.publish.plans import Plan, Plans
from fluxdrop.records.result import Failure, Record, Result, decode, encode

log = get_logger("fluxdrop.publish")

# What a filesystem says of a name that it does not take, whatever is free.
_REFUSED = {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG}
_MOST_REFUSALS = 2
_TOO_MANY_OPEN = {errno.EMFILE, errno.ENFILE}


class Published(NamedTuple):
    """What came of a batch: the records with their paths below the root, and the job folders whose
    plan was void because a file came in the way; those are to be published again."""

    records: list[tuple[Record, str]]
    void: list[Path]


class Publisher:
    """Gives names. One thread owns a publisher, and no other publisher serves its root."""

    def __init__(
        self,
        root: Root,
        store: Store,
        moved_on: Callable[[], None] = lambda: None,
        most_copied: int = 256 * 1024**2,
    ) -> None:
        """*moved_on* is called now and then while a large file is copied; inputs of more than *most_copied* bytes
        are not."""
        self._root = root
        self._store = store
        self._moved_on = moved_on
        self.most_copied = most_copied
        self._places = Places(root)
        self.pool = FolderPool(root.spares, most_spares(root.state))
        self._chooser = NameChooser()
        self._refused: Counter[str] = Counter()
        """How many times the names of each job could not be given."""
        self._kept: set[str] = set()
        """The failed jobs whose inputs outputs/ cannot take."""
        self._plans = Plans(root.plans, (path.name for path in root.work.iterdir()))
        self._unswept = self._plans.folders()
        """Where a killed daemon may have left a copy that was not whole."""

    def publish(self, batch: Sequence[Finished]) -> Published:
        """Publish all of *batch*, with one wait for the disk a step."""
        names = []
        # Most files of a batch are from the same few folders.
        is_blocked = cache(self._places.is_blocked)
        planned = []
        fresh = []
        records: dict[Path, Record] = {}
        try:
            for finished in batch:
                plan = self.planned(finished.job.folder)
                if plan is None:
                    if finished.job.id in self._kept and finished.has_failed:
                        finished = keep_input(finished)
                    name = self._choose(finished, is_blocked)
                    names.append(name)
                    record = records[finished.job.folder] = build_record(finished, name)
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
        inputs = {finished.job.input for finished, _ in fresh} & files
        folders = [finished.job.folder for finished, _ in fresh]
        # One wait for a turn, too.
        with release_io_lock():
            if durable.sync_all(files, folders, lambda path: path not in inputs):
                self.pool.settle()
            else:
                durable.sync_inputs(inputs)
                self._places.sync_sources(finished.job.source for finished, _ in fresh)
            failpoints.reach("files-synced")
            self._plans.decide({finished.job.id: plan for finished, plan in fresh})
            failpoints.reach("plans-synced")

    def perform(
        self,
        planned: Sequence[tuple[Path, Plan]],
        records: Mapping[Path, Record] = MappingProxyType({}),
    ) -> Published:
        """Give the names of each plan, enter the jobs in the index and remove their folders; what is
        not among *records*, by the jobs' folders, is read from there."""
        try:
            return self._perform(planned, records)
        except OSError as error:
            if error.errno not in _TOO_MANY_OPEN or not self._places.open_fewer():
                raise
            return self._perform(planned, records)
        finally:
            self._places.close()

    def _sweep(self) -> None:
        while self._unswept:
            path = next(iter(self._unswept))
            self._places.sweep(path)
            self._unswept.remove(path)

    def _perform(
        self, planned: Sequence[tuple[Path, Plan]], records: Mapping[Path, Record]
    ) -> Published:
        self._sweep()
        done: list[tuple[Path, Record, Plan]] = []
        void = []
        parents: set[str] = set()
        for folder, plan in planned:
            record = records.get(folder) or decode(durable.read_own(folder / RECORD))
            try:
                parents.update(self._link(folder, plan))
            except links.NameTakenError:
                void.append(folder)
                continue
            except (OSError, links.NotCopiedError) as error:
                self._refuse(folder, plan, record, error)
                void.append(folder)
                continue
            done.append((folder, record, plan))
        rows = [row_of(record, plan.record) for _, record, plan in done]
        with release_io_lock():
            self._places.sync(parents)
            failpoints.reach("folders-synced")
            self._store.finished(rows)
            failpoints.reach("index-told")
        # What is removed is opened, too.
        self._places.close()
        gone = [folder.name for folder, _, _ in done if self._discard(folder)]
        self._plans.fulfilled(gone)
        for folder, _, _ in done:
            self._refused.pop(folder.name, None)
            self._kept.discard(folder.name)
        return Published([(record, plan.record) for _, record, plan in done], void)

    def _refuse(
        self, folder: Path, plan: Plan, record: Record, error: OSError | links.NotCopiedError
    ) -> None:
        """Have the job in *folder* alone be published in another way, as *error* kept it from its names. Raises
        *error* where that holds up all jobs, and FluxdropError where this was tried often enough."""
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, PermissionError):
            self._places.check_tops()
            self._places.clear_failed()
        elif isinstance(error, OSError) and (
            error.errno not in _REFUSED or self._refused[folder.name] >= _MOST_REFUSALS
        ):
            raise error
        reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
        log.warning("name refused", job=folder.name, reason=reason)
        is_uncopied = isinstance(error, links.NotCopiedError) and self._has_failed(plan)
        if is_uncopied and folder.name not in self._kept:
            self._kept.add(folder.name)
            self._withdraw(folder)
            return
        if self._refused[folder.name] >= _MOST_REFUSALS:
            raise FluxdropError(
                f"{record.source.file} cannot be published: {reason}",
                hint="Drop it once more when it can be read, and outputs/ and the picture folders written.",
                kind="unpublished",
            ) from error
        self.withdraw(folder)

    def withdraw(self, folder: Path) -> None:
        """Take back what names the job in *folder* was given, if any; when it is published after that it gets a
        NAME that more filesystems take."""
        self._refused[folder.name] += 1
        self._withdraw(folder)

    def _withdraw(self, folder: Path) -> None:
        plan = self.planned(folder)
        if plan is not None:
            try:
                self._take_back(folder, plan)
            finally:
                self._places.close()

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

    def _choose(self, finished: Finished, is_closed: Callable[[str], bool]) -> str:
        targets = [finished.record, *(target for _, target in finished.files)]

        def is_taken(name: str) -> bool:
            return any(
                os.path.lexists(f"{self._root.path}/{target.path(name)}") for target in targets
            )

        def is_blocked(folder: str) -> bool:
            return any(map(is_closed, {f"{target.folder}/{folder}" for target in targets}))

        job = finished.job
        source = job.source
        if self._refused[job.id]:
            source = plain(source if self._refused[job.id] == 1 else job.id)
            job.warnings.append(f"It could not be published under the name {job.source}.")
        return self._chooser.choose(source, is_taken, is_blocked, keeps_suffix=finished.has_failed)

    def _link(self, folder: Path, plan: Plan) -> set[str]:
        """Give the names of *plan*; return the folders that hold them, relative to the root."""
        pairs = self._links(folder, plan)
        # A subfolder may be new, and then its own name has to be on the disk as well.
        targets = [*(target for _, target in plan.links), plan.record]
        parents = {parent for target in targets for parent in above(target)}
        has_failed = self._has_failed(plan)
        try:
            try:
                self._give_all(pairs, has_failed)
            except (FileNotFoundError, NotADirectoryError):
                self._places.make(parents)
                self._give_all(pairs, has_failed)
        except (links.NameTakenError, NotADirectoryError) as error:
            self._take_back(folder, plan)
            raise links.NameTakenError(str(error)) from error
        return parents

    def _take_back(self, folder: Path, plan: Plan) -> None:
        for source, target, _ in self._links(folder, plan):
            parent, _, name = target.rpartition("/")
            try:
                links.take_name_back(source, name, self._places.fd(parent))
            except PermissionError:
                # Who closed the folder meanwhile has what is in it.
                self._places.check_tops()
            except OSError as error:
                # Nothing has a name that cannot be.
                if error.errno not in {*_REFUSED, errno.ENOTDIR, errno.ENOENT}:
                    raise
        failpoints.reach("names-taken-back")
        self._plans.take_back(folder.name)
        failpoints.reach("plan-void")

    def _links(self, folder: Path, plan: Plan) -> list[tuple[str, str, bool]]:
        """What gets which name by *plan*, the record last, each with whether it is the input."""
        pairs = [*plan.links, (os.fsencode(RECORD), plan.record)]
        names = [(os.fsdecode(source), target) for source, target in pairs]
        return [(f"{folder}/{name}", target, is_input(name)) for name, target in names]

    def _has_failed(self, plan: Plan) -> bool:
        return plan.record.startswith(f"{self._root.outputs.name}/{FAILED}/")

    def _give_all(self, pairs: Sequence[tuple[str, str, bool]], has_failed: bool) -> None:
        to_move = []
        for source, target, of_input in pairs:
            parent, _, name = target.rpartition("/")
            folder = self._places.fd(parent)
            try:
                if not of_input:
                    links.give_name(source, name, folder, self._moved_on)
                elif not has_failed:
                    links.give_name(source, name, folder, self._moved_on, self.most_copied)
                elif not links.give_unmoved(source, name, folder, self._moved_on, self.most_copied):
                    to_move.append((source, name, parent))
                    continue
            except FileNotFoundError:
                # What is gone was moved before a kill.
                if os.path.lexists(source):
                    raise
            failpoints.reach("name-given")
        # After all else, the record too: what was moved is not taken back.
        for source, name, parent in to_move:
            links.move_name(source, name, self._places.fd(parent))

    def _discard(self, folder: Path) -> bool:
        """Remove the job's *folder*; whether it is gone from the jobs in hand."""
        try:
            self.pool.discard(folder)
            failpoints.reach("job-discarded")
        except OSError as error:
            # The next start finds it, and in the index that its job has ended.
            log.warning("not removed", folder=str(folder), reason=error.strerror)
            return not folder.exists()
        return True


def _prepare(finished: Finished, name: str, record: Record) -> Plan:
    job = finished.job
    durable.put(job.record, encode(record))
    failpoints.reach("record-written")
    start = f"{job.folder}/"
    links = [
        (os.fsencode(str(path).removeprefix(start)), target.path(name))
        for path, target in finished.files
    ]
    return Plan(links=links, record=finished.record.path(name))


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
