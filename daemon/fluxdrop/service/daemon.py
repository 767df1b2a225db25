"""The daemon: one root, from the lock to the last job given back."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import TypeVar

from fluxdrop import __version__, faults
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.intake.intake import Intake
from fluxdrop.jobs.store import Store
from fluxdrop.layout import Root, RootLock
from fluxdrop.logs import file_trouble, get_logger
from fluxdrop.moments import now
from fluxdrop.passing import is_full
from fluxdrop.publish.outputs import records
from fluxdrop.publish.publisher import row_of
from fluxdrop.publish.result import Failure, Record
from fluxdrop.service.admission import Admission
from fluxdrop.service.heartbeat import Beat, Heartbeat, summary
from fluxdrop.service.line import Line
from fluxdrop.service.notify import Notifier
from fluxdrop.service.orders import forget_answers, take_orders
from fluxdrop.service.pulse import STUCK_SECONDS, Pulse
from fluxdrop.service.reload import Reload
from fluxdrop.service.reports import Reports
from fluxdrop.service.stage import Stopping
from fluxdrop.trouble import Trouble
from fluxdrop.turns import turn

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
        self._reload_wanted = False
        self._stop = threading.Event()
        self._admission = Admission(root, 8 * settings.batch_size, self._is_there)
        self._lock: RootLock | None = None
        self._pulse: Pulse | None = None
        """The scan loop's, once it runs."""
        self._trouble = Trouble("jobs")
        self._heartbeat_trouble = Trouble("heartbeat")
        self._state_trouble = Trouble("state")
        self._log_trouble = Trouble("log file")
        self._troubles = (
            self._trouble,
            self._heartbeat_trouble,
            self._state_trouble,
            self._log_trouble,
        )
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

    @property
    def healthy(self) -> bool:
        """Whether the scan loop and every stage that has work moved on in the last two minutes, so
        that a service manager need not start the daemon anew; any thread may ask.

        What is waited for with a deadline (a forward pass, a denoising step), or because of a known
        trouble (a full disk), is no reason to start anew.
        """
        return not self._stuck()

    def run(self) -> None:
        """Serve. Raises FluxdropError when the root is served already or nothing can run the model.

        A disk that is full from the start is waited for.
        """
        with suppress(Stopping), closing(self._when_there_is_room(self._take_root)) as self._lock:
            self._when_there_is_room(self._run)

    def _when_there_is_room(self, work: Callable[[], T]) -> T:
        while True:
            try:
                return work()
            except (OSError, FluxdropError) as error:
                if not is_full(error):
                    raise
                self._trouble.begin(os.strerror(errno.ENOSPC), str(self._root.path))
            if self._stop.wait(_FULL_PAUSE_SECONDS):
                raise Stopping

    def _take_root(self) -> RootLock:
        self._root.create()
        lock = RootLock(self._root)
        try:
            faults.point("root-locked")
            self._root.check()
            faults.point("root-checked")
            forget_answers(self._root)
        except BaseException:
            lock.close()
            raise
        return lock

    def _run(self) -> None:
        with closing(Store(self._root.database)) as store:
            if store.fresh:
                store.fill(row_of(*found) for found in records(self._root))
            self._line = line = Line(
                self._root,
                self._settings,
                store,
                on_end=self._ended,
                on_job=self._admission.add,
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
                    faults.point("stopping")
                    line.stop()
                    heartbeat.remove()

    def _serve(self, line: Line, store: Store, heartbeat: Heartbeat, reports: Reports) -> None:
        started = now()
        with closing(
            Intake(
                self._root,
                self._settings,
                self._admission.add,
                self._admission.has_room,
                line.publisher.spares.make,
            )
        ) as intake:
            self._intake = intake
            log.info("serving", root=str(self._root.path), pid=os.getpid())
            while not self._trouble.attempt(lambda: self._admission.recover(line, store)):
                if self._stop.wait(_FULL_PAUSE_SECONDS):
                    return
            self._pulse = Pulse()
            self._pulse.adopt()
            reload = Reload(self._root, self._load, line, intake, self._notifier)
            self._notifier.ready(line.longest_answer)
            while not self._stop.is_set():
                # A generation's progress is worth a fresher heartbeat than an idle daemon's.
                longest = 0.2 if self._once else 1.0 if line.current else 5.0
                intake.step(min(longest, self._notifier.patience))
                self._pulse.beat()
                line.check()
                self._trouble.attempt(lambda: self._take(line, store))
                self._look_around()
                beat = self._beat(line, intake, started)
                write = partial(heartbeat.write, beat, self._pulses())
                self._heartbeat_trouble.attempt(write, passes=lambda _error: True)
                reports.beat(beat)
                self._notifier.status(summary(beat))
                # Not reached while the scan loop hangs.
                self._notifier.feed(self._hung(line))
                if self._reload_wanted and not reload.busy:
                    self._reload_wanted = False
                    reload.begin()
                if self._once and not (intake.waiting or self._admission):
                    self.left = intake.left
                    return

    def _take(self, line: Line, store: Store) -> None:
        with turn():
            self._admission.take(line, store)
        take_orders(self._root, line.use, partial(self._admission.cancel, line))

    def _is_there(self) -> bool:
        return self._lock is not None and self._lock.holds()

    def _look_around(self) -> None:
        """See whether .fluxdrop/ is still the one that was locked, and the log file takes lines."""
        if not self._is_there():
            self._state_trouble.begin(
                "it is gone, or another is in its place", str(self._root.state)
            )
        else:
            self._state_trouble.end()
        if reason := file_trouble():
            self._log_trouble.begin(reason)
            log.debug("log file tried again")
        else:
            self._log_trouble.end()

    def _pulses(self) -> dict[str, Pulse]:
        pulses = {stage.name: stage.pulse for stage in self._line.stages} if self._line else {}
        return {"scan": self._pulse, **pulses} if self._pulse else pulses

    def _stuck(self) -> list[str]:
        stuck = self._line.stuck(STUCK_SECONDS) if self._line else []
        if self._pulse is not None and self._pulse.silence > STUCK_SECONDS:
            stuck.append("scan")
        return stuck

    def _hung(self, line: Line) -> str:
        """What keeps the watchdog from being fed."""
        if line.owed > self._notifier.patience:
            return "worker"
        return ", ".join(self._stuck())

    def _ended(self, ended: Sequence[tuple[Record, str]]) -> None:
        for record, path in ended:
            if self._reports is not None:
                self._reports.ended(record, path)
            self._admission.ended(record.job_id)
            if isinstance(record, Failure):
                self.failed += 1
            else:
                self.done += 1
        if self._intake is not None:
            self._intake.wake()

    def _beat(self, line: Line, intake: Intake, started: str) -> Beat:
        model = line.model
        watch = "polling" if intake.polling else "events" if intake.watching else "scans only"
        trouble = [
            *map(str, filter(None, self._troubles)),
            *line.trouble,
            *intake.trouble,
            *(self._reports.trouble if self._reports else []),
            *(f"{part}: nothing has moved for {STUCK_SECONDS:g} s" for part in self._stuck()),
        ]
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
