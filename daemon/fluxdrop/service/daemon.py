"""The daemon: one root, from the lock to the last job given back."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import TypeVar

from fluxdrop import failpoints
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root, RootLock
from fluxdrop.files.transient import is_full_or_away, reason_of
from fluxdrop.intake.intake import Intake
from fluxdrop.jobs.claim import read_claim
from fluxdrop.jobs.store import Row, Store
from fluxdrop.logs import get_logger
from fluxdrop.outage import OutageTracker
from fluxdrop.publish.index_row import row_of
from fluxdrop.publish.publisher import Publisher
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
    """Serves *root* until `stop`, or with *once* until there is nothing left to do.

    *load* gives the settings anew for `reload`; *notifier* tells the service manager.
    """

    def __init__(
        self,
        root: Root,
        settings: Settings,
        *,
        once: bool = False,
        load: Callable[[], Settings] | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self._root = root
        self._settings = settings
        self._once = once
        self._load = load or (lambda: settings)
        self._notifier = notifier or Notifier()
        self._shutdown = Shutdown()
        self._mailbox = Mailbox()
        self._trouble = OutageTracker("disk")
        self._lock: RootLock | None = None
        self._loop: MainLoop | None = None
        self.left: dict[str, str] = {}
        """What could not even be claimed when `run` ended, and why."""

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler or any thread."""
        self._shutdown.begin()
        self._mailbox.wake()

    def reload(self) -> None:
        """Read settings and model again soon; may be called from a signal handler."""
        if self._loop is not None:
            self._loop.reload_wanted = True
            self._mailbox.wake()

    @property
    def done(self) -> int:
        """How many jobs came through."""
        return self._loop.done if self._loop is not None else 0

    @property
    def failed(self) -> int:
        """How many jobs failed."""
        return self._loop.failed if self._loop is not None else 0

    @property
    def healthy(self) -> bool:
        """Whether the main loop and every stage that has work moved on in the last two minutes, so that a
        service manager need not start the daemon anew; any thread may ask.

        What is waited for with a deadline (a forward pass, a denoising step), or because of a known
        trouble (a full disk), is no reason to start anew.
        """
        return self._loop is None or not self._loop.hung

    def run(self) -> None:
        """Serve. Raises FluxdropError when the root is served already or nothing can run the model.

        A disk that is full, read-only or away from the start is waited for.
        """
        with suppress(Stopping), closing(self._when_it_can(self._take_root)) as self._lock:
            self._when_it_can(self._run)

    def _when_it_can(self, work: Callable[[], T]) -> T:
        while True:
            try:
                return work()
            except (OSError, FluxdropError) as error:
                if not is_full_or_away(error):
                    raise
                self._trouble.begin(reason_of(error), str(self._root.path))
            if self._shutdown.wait(_FULL_PAUSE_SECONDS):
                raise Stopping

    def _take_root(self) -> RootLock:
        if not self._root.inbox.is_dir():
            # What would be made in its place would be hidden when it is mounted again.
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
            self._trouble.end()
            with closing(Observers(self._root, self._settings)) as reports:
                try:
                    stages.start()
                    self._serve(store, stages, reports)
                except Stopping:
                    pass
                finally:
                    self._notifier.stopping()
                    log.info("stopping", done=self.done, failed=self.failed)
                    failpoints.reach("stopping")
                    stages.stop()
                    if self._loop is not None:
                        # What ended in the meantime is to be told of, too.
                        self._loop.read_mailbox()
                    with suppress(OSError):
                        self._root.heartbeat.unlink()

    def _ended(self, publisher: Publisher) -> Iterator[Row]:
        """What outputs/ knows of the jobs that have ended: not those that may not have all their names yet, nor those
        whose input still waits, whatever a record says, which anybody may have put there."""
        for record, path in records(self._root):
            folder = self._root.work / record.job_id
            row = row_of(record, path)
            claim = read_claim(folder)
            if claim is not None and not is_published(self._root, row, claim.input):
                log.warning("a record of a job that waits", job=record.job_id, path=path)
            elif publisher.planned(folder) is None:
                yield row

    def _serve(self, store: Store, stages: Stages, reports: Observers) -> None:
        most_pictures = 8 * self._settings.batch_size
        admission = Admission(self._root, store, stages, most_pictures, self._is_there)
        with closing(
            Intake(
                self._root,
                self._settings,
                admission.add,
                admission.has_room,
                stages.publisher.pool.give,
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
                reports,
                self._notifier,
                self._shutdown,
                load=self._load,
                is_there=self._is_there,
                once=self._once,
            )
            try:
                self._loop.run()
            finally:
                self.left = intake.left

    def _is_there(self) -> bool:
        return self._lock is not None and self._lock.holds()
