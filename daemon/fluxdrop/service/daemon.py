"""The daemon: one root, from the lock to the last job given back."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from fluxdrop import __version__, durable
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.intake.claim import discard_empty
from fluxdrop.intake.intake import Claim, Intake
from fluxdrop.jobs.job import claimed_row, open_job
from fluxdrop.jobs.store import Store
from fluxdrop.layout import Root, RootLock
from fluxdrop.logs import get_logger
from fluxdrop.moments import now
from fluxdrop.publish.outputs import records
from fluxdrop.publish.publisher import row_of
from fluxdrop.publish.result import Failure, Record
from fluxdrop.service.heartbeat import Beat, Heartbeat, summary
from fluxdrop.service.line import Line
from fluxdrop.service.notify import Notifier
from fluxdrop.service.orders import take_orders
from fluxdrop.service.reload import Reload
from fluxdrop.service.reports import Reports
from fluxdrop.service.stage import Stopping

log = get_logger("fluxdrop.daemon")

_MOST_PROMPTS = 16


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
        self._reload_wanted = False
        self._stop = threading.Event()
        self._counting = threading.Lock()
        self._in_flight: dict[str, bool] = {}
        self._to_take: deque[Path] = deque()
        self._intake: Intake | None = None
        self._line: Line | None = None
        self._reports: Reports | None = None
        self.done = 0
        self.failed = 0
        self.left: dict[str, str] = {}
        """What could not even be claimed when `run` ended, and why."""

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler or any thread."""
        self._stop.set()
        if self._line is not None:
            self._line.hasten()
        if self._intake is not None:
            self._intake.wake()

    def reload(self) -> None:
        """Read settings and model again soon; may be called from a signal handler."""
        self._reload_wanted = True
        if self._intake is not None:
            self._intake.wake()

    def run(self) -> None:
        """Serve. Raises FluxdropError when the root is served already or nothing can run the model."""
        self._root.create()
        self._root.check()
        with closing(RootLock(self._root)), closing(Store(self._root.database)) as store:
            if store.fresh:
                store.fill(row_of(*found) for found in records(self._root))
            self._line = line = Line(
                self._root,
                self._settings,
                store,
                on_end=self._ended,
                on_job=self._to_take.append,
            )
            heartbeat = Heartbeat(self._root.heartbeat)
            with closing(Reports(self._root, self._settings)) as self._reports:
                try:
                    line.start()
                    self._serve(line, store, heartbeat, self._reports)
                except Stopping:
                    pass
                finally:
                    self._notifier.stopping()
                    log.info("stopping", done=self.done, failed=self.failed)
                    line.stop()
                    heartbeat.remove()

    def _serve(self, line: Line, store: Store, heartbeat: Heartbeat, reports: Reports) -> None:
        started = now()

        def accept(claim: Claim) -> None:
            self._take(claim, line, store)

        with closing(Intake(self._root, self._settings, accept, self._room)) as intake:
            self._intake = intake
            log.info("serving", root=str(self._root.path), pid=os.getpid())
            self._recover(line, store)
            reload = Reload(self._root, self._load, line, intake, self._notifier)
            self._notifier.ready(line.longest_answer)
            while not self._stop.is_set():
                # A generation's progress is worth a fresher heartbeat than an idle daemon's.
                longest = 0.2 if self._once else 1.0 if line.current else 5.0
                intake.step(min(longest, self._notifier.patience))
                line.check()
                take_orders(self._root, line.use, partial(self._cancel, line))
                while self._to_take:
                    self._take(Claim(self._to_take.popleft(), ""), line, store)
                beat = self._beat(line, intake, started)
                heartbeat.write(beat)
                reports.beat(beat)
                self._notifier.status(summary(beat))
                # Not reached while the scan loop hangs.
                self._notifier.feed("worker" if line.owed > self._notifier.patience else "")
                if self._reload_wanted and not reload.busy:
                    self._reload_wanted = False
                    reload.begin()
                if self._once and not (intake.waiting or self._in_flight or self._to_take):
                    self.left = intake.left
                    return

    def _recover(self, line: Line, store: Store) -> None:
        """Take up what an earlier run had claimed: first what was named already, then the rest."""
        folders = sorted(path for path in self._root.work.iterdir() if path.is_dir())
        planned = []
        for folder in folders:
            plan = line.publisher.planned(folder)
            if plan is not None:
                planned.append((folder, plan))
        line.announce(line.publisher.perform(planned))
        decided = {folder for folder, _ in planned}
        for folder in folders:
            if folder in decided:
                continue
            row = store.get(folder.name)
            if row is not None and row.state != "claimed":
                durable.remove_tree(folder)
            else:
                log.info("taken up again", job=folder.name)
                self._take(Claim(folder, ""), line, store)

    def _take(self, claim: Claim, line: Line, store: Store) -> None:
        try:
            job = open_job(claim.folder, claim.fault)
        except FluxdropError as error:
            log.error("left alone", job=claim.folder.name, reason=error.message)
            return
        if job is None:
            discard_empty(claim.folder)
            return
        with self._counting:
            self._in_flight[job.id] = job.kind == "prompt"
        store.claimed([claimed_row(job)])
        line.accept(job)

    def _cancel(self, line: Line, job_ids: list[str]) -> None:
        for job_id in job_ids:
            # An order may name anything, but only what is in hand has a folder to be cancelled in.
            if job_id in self._in_flight:
                log.info("cancelled", job=job_id)
                line.cancel(job_id)

    def _ended(self, record: Record, path: str) -> None:
        if self._reports is not None:
            self._reports.ended(record, path)
        with self._counting:
            self._in_flight.pop(record.job_id, None)
            if isinstance(record, Failure):
                self.failed += 1
            else:
                self.done += 1
        if self._intake is not None:
            self._intake.wake()

    def _room(self, is_prompt: bool) -> bool:
        limit = _MOST_PROMPTS if is_prompt else 4 * self._settings.batch_size
        with self._counting:
            return sum(kind is is_prompt for kind in self._in_flight.values()) < limit

    def _beat(self, line: Line, intake: Intake, started: str) -> Beat:
        model = line.model
        watch = "polling" if intake.polling else "events" if intake.watching else "scans only"
        trouble = line.trouble + (self._reports.trouble if self._reports else [])
        trouble += [f"inbox: {path}: {reason}" for path, reason in intake.left.items()]
        if watch == "scans only":
            trouble.append("inbox: no events arrive, so files are found by scans only")
        return Beat(
            pid=os.getpid(),
            version=__version__,
            started=started,
            model=model.bundle.name if model else "",
            engine=model.engine.info if model else None,
            generator_pid=line.generator_pid,
            watch=watch,
            filesystem=intake.filesystem,
            inbox=intake.waiting,
            stages={stage.name: stage.waiting for stage in line.stages},
            current=line.current,
            trouble=trouble,
        )
