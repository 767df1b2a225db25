"""The daemon of one root: locks it, runs all parts, and stops them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import TypeVar

from fluxdrop import failpoints
from fluxdrop.config import Settings
from fluxdrop.delivery.deliveries import Deliveries
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root, RootLock
from fluxdrop.files.transient import is_full_or_away, reason_of
from fluxdrop.intake.intake import Intake
from fluxdrop.jobs.claim import read_claim
from fluxdrop.jobs.store import Row, Store
from fluxdrop.logs import get_logger
from fluxdrop.outage import OutageTracker
from fluxdrop.publish.publisher import Publisher
from fluxdrop.records.index_row import row_of
from fluxdrop.records.job_files import is_published
from fluxdrop.records.outputs import records
from fluxdrop.service.admission import Admission
from fluxdrop.service.mailbox import Mailbox
from fluxdrop.service.main_loop import MainLoop
from fluxdrop.service.reporting.notify import Notifier
from fluxdrop.service.reporting.observers import Observers
from fluxdrop.service.shutdown import Shutdown, Stopping
from fluxdrop.service.stages.stages import Stages

log = get_logger("fluxdrop.daemon")

T = TypeVar("T")

_FULL_PAUSE_SECONDS = 2.0


class Daemon:
    """Serves one root until `stop` is called or, with *once*, until no work is left."""

    def __init__(
        self,
        root: Root,
        settings: Settings,
        *,
        once: bool = False,
        load: Callable[[], Settings] | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        """Prepare the daemon; `run` does the work.

        Args:
            root: The folder to serve.
            settings: The settings to begin with.
            once: Return from `run` when the inbox is empty and all jobs have ended.
            load: Reads the settings again for `reload`; without it, they stay.
            notifier: Tells the service manager how the daemon is; without it, nobody is told.
        """
        self._root = root
        self._settings = settings
        self._once = once
        self._load = load or (lambda: settings)
        self._notifier = notifier or Notifier()
        self._shutdown = Shutdown()
        self._mailbox = Mailbox()
        self._outage = OutageTracker("disk")
        self._lock: RootLock | None = None
        self._loop: MainLoop | None = None
        self.skipped: dict[str, str] = {}
        """Files that could not be claimed when `run` ended, with the reasons."""

    def stop(self) -> None:
        """Make `run` end soon. May be called by a signal handler or any thread."""
        self._shutdown.begin()
        self._mailbox.wake()

    def reload(self) -> None:
        """Read the settings and the model again soon. May be called by a signal handler."""
        if self._loop is not None:
            self._loop.reload_wanted = True
            self._mailbox.wake()

    @property
    def done(self) -> int:
        """The number of jobs that succeeded."""
        return self._loop.done if self._loop is not None else 0

    @property
    def failed(self) -> int:
        """The number of jobs that failed."""
        return self._loop.failed if self._loop is not None else 0

    def run(self) -> None:
        """Serve the root until the daemon stops.

        Waits while the disk is full, read-only or not mounted, also at the start.

        Raises:
            FluxdropError: Another daemon serves the root, or nothing can run the model.
        """
        with (
            suppress(Stopping),
            closing(self._retry_while_unavailable(self._lock_root)) as self._lock,
        ):
            self._retry_while_unavailable(self._run)

    def _retry_while_unavailable(self, work: Callable[[], T]) -> T:
        """Call *work* until no full, read-only or missing disk is in its way; return what it returns."""
        while True:
            try:
                return work()
            except (OSError, FluxdropError) as error:
                if not is_full_or_away(error):
                    raise
                self._outage.begin(reason_of(error), str(self._root.path))
            if self._shutdown.wait(_FULL_PAUSE_SECONDS):
                raise Stopping

    def _lock_root(self) -> RootLock:
        if not self._root.inbox.is_dir():
            # A folder made here now would be hidden once the disk is mounted again.
            raise OSError(errno.ESTALE, os.strerror(errno.ENOENT), str(self._root.inbox))
        self._root.create()
        lock = RootLock(self._root)
        try:
            failpoints.reach("root-locked")
            self._root.sweep()
            self._root.check()
            failpoints.reach("root-checked")
        except BaseException:
            lock.close()
            raise
        return lock

    def _run(self) -> None:
        with closing(Store(self._root.database)) as store:
            stages = Stages(self._root, self._settings, store, self._mailbox, self._shutdown)
            if store.fresh:
                for row in store.fill(self._ended(stages.publisher)):
                    log.warning("a record that the index does not take", path=row.record)
            self._outage.end()
            deliveries = Deliveries(self._root, self._settings, store)
            stages.publisher.owe = deliveries.owe
            with closing(
                Observers(self._root, self._settings, deliveries, once=self._once)
            ) as observers:
                try:
                    stages.start()
                    if not self._once:
                        # A daemon that ends soon opens only the models that it needs.
                        stages.warm_up(reopen_all=False)
                    self._serve(store, stages, observers)
                except Stopping:
                    pass
                finally:
                    self._notifier.stopping()
                    log.info("stopping", done=self.done, failed=self.failed)
                    failpoints.reach("stopping")
                    stages.stop()
                    if self._loop is not None:
                        # Count the jobs that ended while the stages stopped.
                        self._loop.read_mailbox()
                    with suppress(OSError):
                        self._root.heartbeat.unlink()

    def _ended(self, publisher: Publisher) -> Iterator[Row]:
        """Yield the index rows of the ended jobs that outputs/ has records of.

        Skips jobs that may lack some of their files' names, and jobs whose input still waits,
        whatever a record says: anybody may have put it there.
        """
        for record, path in records(self._root):
            folder = self._root.work / record.job_id
            row = row_of(record, path)
            claim = read_claim(folder)
            if claim is not None and not is_published(self._root, row, claim.input):
                log.warning("a record of a job that waits", job=record.job_id, path=path)
            elif publisher.planned(folder) is None:
                yield row

    def _serve(self, store: Store, stages: Stages, observers: Observers) -> None:
        max_pictures = 8 * self._settings.batch_size
        admission = Admission(self._root, store, stages, max_pictures, self._is_root_available)
        with closing(
            Intake(
                self._root,
                self._settings,
                admission.add,
                admission.has_room,
                stages.publisher.pool.reuse_folder,
            )
        ) as intake:
            self._mailbox.wake = intake.wake
            log.info("serving", root=str(self._root.path), pid=os.getpid())
            self._loop = MainLoop(
                self._root,
                store,
                stages,
                intake,
                admission,
                self._mailbox,
                observers,
                self._notifier,
                self._shutdown,
                load=self._load,
                is_root_available=self._is_root_available,
                once=self._once,
            )
            try:
                self._loop.run()
            finally:
                self.skipped = intake.skipped

    def _is_root_available(self) -> bool:
        return self._lock is not None and self._lock.holds()
