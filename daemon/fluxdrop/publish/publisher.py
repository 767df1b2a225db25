"""Publishing the files of a job under their names: durably, exactly once, replacing nobody else's files.

First everything is synced in the job's folder; then a plan decides the names; then the files are linked to these
names, the record last; then the job's folder is removed. After a kill anywhere in between, `perform` with the same
plan ends in the same state. A job's folder is emptied only when the index says, durably, that the job has ended:
whatever a power cut leaves of the folder may be removed.
"""

from __future__ import annotations

import errno
import os
import sqlite3
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
from fluxdrop.files.layout import Root
from fluxdrop.jobs.folder_pool import FolderPool, spares_limit
from fluxdrop.jobs.job import RECORD
from fluxdrop.jobs.store import Store
from fluxdrop.logs import get_logger
from fluxdrop.publish import links
from fluxdrop.publish.by_label import SORTED, without_sorted
from fluxdrop.publish.linker import NAME_REFUSED, Linker
from fluxdrop.publish.names import NameChooser, portable
from fluxdrop.publish.outcome import Finished, build_record, keep_input
from fluxdrop.publish.places import Places
from fluxdrop.publish.plans import Plan, Plans
from fluxdrop.publish.similar_names import SimilarNames
from fluxdrop.records.index_row import row_of
from fluxdrop.records.result import Record, decode, encode

log = get_logger("fluxdrop.publish")

Owe = Callable[[Sequence[tuple[Record, str]]], Callable[[sqlite3.Connection], None]]

_MAX_REFUSALS = 2
_TOO_MANY_OPEN = {errno.EMFILE, errno.ENFILE}


class Published(NamedTuple):
    """What came of a batch."""

    records: list[tuple[Record, str]]
    """The records that were published, with their paths below the root."""
    void: list[Path]
    """The folders of the jobs that are to be published again: a file was in the way, or a name was refused."""


class Publisher:
    """Publishes the jobs of *root*. One thread owns it, and no other publisher serves its root."""

    def __init__(
        self,
        root: Root,
        store: Store,
        on_progress: Callable[[], None] = lambda: None,
        max_copied_bytes: int = 256 * 1024**2,
    ) -> None:
        """Read the plans of *root*.

        Args:
            root: The root.
            store: Its index.
            on_progress: Called at least once for each MiB that is copied.
            max_copied_bytes: The largest input that is copied.

        Raises:
            OSError: The disk is full or not available.
        """
        self._root = root
        self._store = store
        self.max_copied_bytes = max_copied_bytes
        self.owe: Owe = lambda _ended: lambda _db: None
        """Called with the records of jobs before they end, for a function that their end's transaction calls."""
        self._places = Places(root)
        self.pool = FolderPool(root.spares, spares_limit(root.state))
        self._chooser = NameChooser()
        self._done_names = SimilarNames((root.outputs, root.generated, root.preprocessed))
        self._failed_names = SimilarNames((root.failed,), keeps_suffix=True)
        self._refused: Counter[str] = Counter()
        """How often the names of each job were refused, by the jobs' ids."""
        self._kept: set[str] = set()
        """The ids of the failed jobs whose inputs go to .fluxdrop/kept/, as they cannot go to outputs/."""
        self._plans = Plans(root.plans, (path.name for path in root.work.iterdir()))
        self._linker = Linker(self._places, self._plans, on_progress)
        self._unswept = self._plans.folders()
        """The folders in which a killed daemon may have left temporary files."""

    def publish(self, batch: Sequence[Finished]) -> Published:
        """Publish the jobs of *batch* together: each step waits for the disk once for all of them.

        What was decided for a job already is carried out. After an OSError it may be called again.

        Args:
            batch: The jobs. The warnings of one that gets a portable name get another.

        Raises:
            FluxdropError: A job cannot be published; its plan still holds, see `withdraw`.
            OSError: The disk is full or not available.
        """
        names = []
        # Most files of a batch go to the same few folders.
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
                    if self._refused[finished.job.id] or _is_sorting_blocked(finished, is_blocked):
                        finished = without_sorted(finished)
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
            self._done_names.settle()
            self._failed_names.settle()

    def _decide(self, fresh: Sequence[tuple[Finished, Plan]]) -> None:
        """Sync the files of the jobs *fresh* and write their plans, durably. Raises OSError."""
        files = {path for finished, _ in fresh for path, _ in finished.files}
        files.update(finished.job.record for finished, _ in fresh)
        inputs = {finished.job.input for finished, _ in fresh} & files
        folders = [finished.job.folder for finished, _ in fresh]
        # Release the lock once for all of it.
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
        """Publish what plans say, enter the jobs in the index and remove their folders.

        Calling it again is harmless.

        Args:
            planned: The jobs' folders with their plans.
            records: Records by the jobs' folders; those that are missing are read from the folders.

        Raises:
            FluxdropError: A job cannot be published; its plan still holds, see `withdraw`.
            OSError: The disk is full or not available.
        """
        try:
            return self._perform(planned, records)
        except OSError as error:
            if error.errno not in _TOO_MANY_OPEN or not self._places.limit_open():
                raise
            return self._perform(planned, records)
        finally:
            self._places.close()

    def _sweep(self) -> None:
        """Remove the temporary files of a killed daemon, once. Raises OSError."""
        while self._unswept:
            path = next(iter(self._unswept))
            self._places.sweep(path)
            self._unswept.remove(path)

    def _perform(
        self, planned: Sequence[tuple[Path, Plan]], records: Mapping[Path, Record]
    ) -> Published:
        """See `perform`."""
        self._sweep()
        done: list[tuple[Path, Record, Plan]] = []
        void = []
        parents: set[str] = set()
        for folder, plan in planned:
            record = records.get(folder) or decode(durable.read_own(folder / RECORD))
            try:
                parents.update(self._linker.link(folder, plan, self.max_copied_bytes))
            except links.NameTakenError:
                void.append(folder)
                continue
            except (OSError, links.NotCopiedError) as error:
                self._handle_refusal(folder, plan, record, error)
                void.append(folder)
                continue
            done.append((folder, record, plan))
        rows = [row_of(record, plan.record) for _, record, plan in done]
        owe = self.owe([(record, plan.record) for _, record, plan in done])
        with release_io_lock():
            self._places.sync(parents)
            failpoints.reach("folders-synced")
            self._store.finished(rows, owe)
            failpoints.reach("index-told")
        # Removing folders opens some, too.
        self._places.close()
        gone = [folder.name for folder, _, _ in done if self._discard(folder)]
        self._plans.forget(gone)
        for folder, _, _ in done:
            self._refused.pop(folder.name, None)
            self._kept.discard(folder.name)
        return Published([(record, plan.record) for _, record, plan in done], void)

    def _handle_refusal(
        self, folder: Path, plan: Plan, record: Record, error: OSError | links.NotCopiedError
    ) -> None:
        """Make *plan* for the job in *folder* void, as *error* kept it from being carried out.

        The job alone is then to be published in another way: under a portable name, or with its input in
        .fluxdrop/kept/.

        Raises:
            OSError: It is *error*, which holds up all jobs, or the disk is full or not available.
            FluxdropError: This was tried often enough.
        """
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, PermissionError):
            self._places.check_top_folders()
            self._places.replace_closed_failed()
        elif isinstance(error, OSError) and (
            error.errno not in NAME_REFUSED or self._refused[folder.name] >= _MAX_REFUSALS
        ):
            raise error
        reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
        log.warning("name refused", job=folder.name, reason=reason)
        is_uncopied = isinstance(error, links.NotCopiedError) and plan.has_failed
        if is_uncopied and folder.name not in self._kept:
            self._kept.add(folder.name)
            self._withdraw(folder)
            return
        if self._refused[folder.name] >= _MAX_REFUSALS:
            raise FluxdropError(
                f"{record.source.file} cannot be published: {reason}",
                hint="Drop it once more when it can be read, and outputs/ and the picture folders written.",
                kind="unpublished",
            ) from error
        self.withdraw(folder)

    def withdraw(self, folder: Path) -> None:
        """Remove what was published of the job in *folder*, if anything, and make its plan void.

        When it is published again it gets a more portable NAME. Raises OSError.
        """
        self._refused[folder.name] += 1
        self._withdraw(folder)

    def _withdraw(self, folder: Path) -> None:
        """Call `Linker.unlink` for the job in *folder*, if it has a plan. Raises OSError."""
        plan = self.planned(folder)
        if plan is not None:
            try:
                self._linker.unlink(folder, plan)
            finally:
                self._places.close()

    def planned(self, folder: Path) -> Plan | None:
        """Return the plan for the job in *folder*.

        Returns:
            None if there is none, or if the job's record is gone: then all was published.
        """
        plan = self._plans.get(folder.name)
        return plan if plan is not None and (folder / RECORD).exists() else None

    def forget_gone(self, folders: Sequence[Path]) -> None:
        """Forget the plans for jobs other than those in *folders*, which are all there are. Never raises."""
        self._plans.forget_all_but(folder.name for folder in folders)

    def remove_if_ended(self, folder: Path) -> bool:
        """Remove *folder* if its job has ended by the index; return whether it has. Raises OSError.

        A start finds such a folder where it could not be removed, or where a power cut brought it back.
        """
        row = self._store.get(folder.name)
        if row is None or row.state == "claimed":
            return False
        durable.remove_tree(folder)
        return True

    def _choose(self, finished: Finished, is_closed: Callable[[str], bool]) -> str:
        """Return a NAME for *finished*, under which none of its files exists; `NameChooser` reserves it.

        *is_closed* returns whether a path below the root cannot be used as a folder.
        """
        targets = [finished.record, *(target for _, target in finished.files)]

        similar = self._failed_names if finished.has_failed else self._done_names

        def exists(name: str) -> bool:
            return any(
                os.path.lexists(f"{self._root.path}/{target.path(name)}") for target in targets
            )

        def is_taken(name: str) -> bool:
            return exists(name) or any(map(exists, similar.of(name)))

        def is_blocked(folder: str) -> bool:
            tops = {target.folder for target in targets}
            return any(is_closed(f"{top}/{folder}") for top in tops) or similar.hides(folder)

        job = finished.job
        source = job.source
        if self._refused[job.id]:
            source = portable(source if self._refused[job.id] == 1 else job.id)
            job.warnings.append(f"It could not be published under the name {job.source}.")
        name = self._chooser.choose(source, is_taken, is_blocked, keeps_suffix=finished.has_failed)
        similar.add(name)
        return name

    def _discard(self, folder: Path) -> bool:
        """Remove the job's *folder*; return whether it is gone from work/. Never raises OSError."""
        try:
            self.pool.discard(folder)
            failpoints.reach("job-discarded")
        except OSError as error:
            # The next start finds it, and finds in the index that its job has ended.
            log.warning("not removed", folder=str(folder), reason=error.strerror)
            return not folder.exists()
        return True


def _is_sorting_blocked(finished: Finished, is_closed: Callable[[str], bool]) -> bool:
    """Return whether something else is where a folder for *finished* below outputs/by-label/ should be."""
    sorted_in = {t.folder for _, t in finished.files if t.folder.startswith(f"{SORTED}/")}
    return any(map(is_closed, {SORTED, *sorted_in} if sorted_in else ()))


def _prepare(finished: Finished, name: str, record: Record) -> Plan:
    """Write *record* to the job's folder; return the plan for the NAME *name*. Raises OSError."""
    job = finished.job
    durable.put(job.record, encode(record))
    failpoints.reach("record-written")
    start = f"{job.folder}/"
    pairs = [
        (os.fsencode(str(path).removeprefix(start)), target.path(name))
        for path, target in finished.files
    ]
    return Plan(links=pairs, record=finished.record.path(name))
