"""The main loop: the thread that scans the inbox, admits jobs, changes settings and reports status."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from fluxdrop import __version__
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files.io_lock import hold_io_lock
from fluxdrop.files.layout import Root
from fluxdrop.intake.intake import Intake
from fluxdrop.jobs.store import Store
from fluxdrop.logs import file_error, get_logger
from fluxdrop.outage import OutageTracker
from fluxdrop.records.result import Failure
from fluxdrop.requests.reader import Requests
from fluxdrop.service.admission import Admission
from fluxdrop.service.changes import Changes, Reload, UseModel
from fluxdrop.service.mailbox import (
    Abandoned,
    Claimed,
    Ended,
    Mailbox,
    Message,
    ModelChanged,
    ModelRefused,
    Rewritten,
)
from fluxdrop.service.reporting.heartbeat import DaemonStatus, Heartbeat, summary
from fluxdrop.service.reporting.notify import Notifier
from fluxdrop.service.reporting.observers import Observers
from fluxdrop.service.shutdown import Shutdown
from fluxdrop.service.stages.stages import Stages
from fluxdrop.service.supervision.liveness import STUCK_SECONDS, Liveness
from fluxdrop.timestamps import now

log = get_logger("fluxdrop.daemon")

_PAUSE_SECONDS = 1.0


class MainLoop:
    """Runs the daemon's parts in turn until it stops or, with *once*, until no work is left.

    A transient error begins an outage, and the work is tried again in the next step. A
    defect in one part is logged, and the other parts go on.
    """

    def __init__(
        self,
        root: Root,
        store: Store,
        stages: Stages,
        intake: Intake,
        admission: Admission,
        mailbox: Mailbox,
        observers: Observers,
        notifier: Notifier,
        shutdown: Shutdown,
        *,
        load: Callable[[], Settings],
        is_root_available: Callable[[], bool],
        once: bool,
    ) -> None:
        """Connect the parts.

        Args:
            root: The root that the daemon serves.
            store: The index.
            stages: The stages; the caller starts and stops them.
            intake: Finds and claims the files of the inbox.
            admission: The queue of claimed jobs.
            mailbox: What the stages report.
            observers: Gallery and metrics.
            notifier: Tells the service manager how the daemon is.
            shutdown: Ends the loop when begun.
            load: Reads the settings again. Raises FluxdropError if they are invalid.
            is_root_available: Returns whether `.fluxdrop/` is still the folder that was locked.
            once: Return from `run` when no work is left.
        """
        self._root = root
        self._stages = stages
        self._intake = intake
        self._admission = admission
        self._mailbox = mailbox
        self._observers = observers
        self._notifier = notifier
        self._shutdown = shutdown
        self._load = load
        self._is_root_available = is_root_available
        self._once = once
        self._changes = Changes(stages)
        self._requests = Requests(
            root,
            store,
            accept=admission.add,
            room=admission.has_room,
            max_bytes=lambda: stages.settings.max_file_bytes,
            use=self._use_model,
            cancel=admission.cancel,
        )
        self._reload: Reload | None = None
        self._heartbeat = Heartbeat(root.heartbeat)
        self._started = now()
        self._liveness = Liveness()
        self._scan_outage = OutageTracker("scan")
        self._messages_outage = OutageTracker("messages")
        self._requests_outage = OutageTracker("requests")
        self._jobs_outage = OutageTracker("jobs")
        self._changes_outage = OutageTracker("settings")
        self._heartbeat_outage = OutageTracker("heartbeat")
        self._state_outage = OutageTracker("state")
        self._log_outage = OutageTracker("log file")
        self._outages = (
            self._scan_outage,
            self._messages_outage,
            self._requests_outage,
            self._jobs_outage,
            self._changes_outage,
            self._heartbeat_outage,
            self._state_outage,
            self._log_outage,
        )
        self.reload_wanted = False
        """Set to True, by any thread, to have the settings read again."""
        self.done = 0
        self.failed = 0

    @property
    def stuck(self) -> list[str]:
        """The parts that have work and made no progress for two minutes. Any thread may ask."""
        stuck = self._stages.stuck(STUCK_SECONDS)
        return [*stuck, "scan"] if self._liveness.silence > STUCK_SECONDS else stuck

    def run(self) -> None:
        """Serve until the daemon stops.

        Raises:
            BaseException: The error that ended a stage.
        """
        self._liveness.bind_thread()
        self._recover()
        self._notifier.ready(self._stages.max_reply_seconds)
        while not self._shutdown.begun:
            self._step()
            if self._once and not self._busy:
                return

    def read_mailbox(self) -> None:
        """Handle the messages that wait in the mailbox."""
        for message in self._mailbox.receive():
            self._attempt(self._messages_outage, partial(self._handle, message))

    @property
    def _busy(self) -> bool:
        return bool(
            self._intake.waiting or self._requests or self._admission.busy or self._changes.busy
        )

    def _recover(self) -> None:
        while not self._attempt(self._jobs_outage, self._admission.recover):
            if self._shutdown.wait(_PAUSE_SECONDS):
                return

    def _step(self) -> None:
        # While a picture is generated, `status` shows its progress, so update the heartbeat sooner.
        timeout = 0.2 if self._once else 1.0 if self._stages.currents else 5.0
        step = partial(self._intake.step, min(timeout, self._notifier.max_silence_seconds))
        self._attempt(self._scan_outage, step)
        self._liveness.touch()
        self._stages.check()
        self.read_mailbox()
        if self._is_root_available():
            self._attempt(self._requests_outage, self._requests.step)
        self._attempt(self._jobs_outage, self._admit_jobs)
        self._attempt(self._changes_outage, self._step_changes)
        self._check_state_and_log()
        self._attempt(self._heartbeat_outage, self._report)

    def _attempt(self, outage: OutageTracker, work: Callable[[], object]) -> bool:
        """Call *work*; return whether it succeeded. Otherwise begin *outage* or record a defect."""
        try:
            return outage.attempt(work, lambda _error: True)
        except Exception as error:
            self._stages.context.defects.record("main loop", error)
            # Do not retry at once: the defect may show each time.
            self._shutdown.wait(_PAUSE_SECONDS)
            return False

    def _handle(self, message: Message) -> None:
        match message:
            case Ended(records):
                for record, path in records:
                    self._observers.job_ended(record, path)
                    self._admission.remove(record.job_id)
                    if isinstance(record, Failure):
                        self.failed += 1
                    else:
                        self.done += 1
            case Claimed(jobs):
                for job in jobs:
                    self._admission.add(job)
            case Rewritten(folder):
                self._admission.rewritten.add(folder)
            case Abandoned(job_id):
                self._admission.remove(job_id)
                self.failed += 1
            case ModelChanged():
                self._changes.model_opened()
            case ModelRefused(error):
                self._changes.model_refused(error)

    def _admit_jobs(self) -> None:
        with hold_io_lock():
            self._admission.admit()

    def _use_model(self, name: str, on_done: Callable[[FluxdropError | None], None]) -> None:
        self._changes.add(UseModel(self._stages, name, on_done))

    def _step_changes(self) -> None:
        if self.reload_wanted and (self._reload is None or self._reload.done):
            self.reload_wanted = False
            self._reload = Reload(
                self._root, self._load, self._stages, self._intake, self._notifier
            )
            self._changes.add(self._reload)
        self._changes.step()

    def _check_state_and_log(self) -> None:
        """Begin an outage if `.fluxdrop/` is not the folder that was locked, or the log file takes no lines."""
        if reason := file_error():
            self._log_outage.begin(reason)
            log.debug("log file tried again")
        else:
            self._log_outage.end()
        if self._is_root_available():
            self._state_outage.end()
        else:
            self._state_outage.begin(
                "it is gone, or another is in its place", str(self._root.state)
            )

    def _report(self) -> None:
        """Report the daemon's status to the heartbeat file, the observers and the service manager."""
        status = self._status()
        self._observers.update(status)
        self._notifier.status(summary(status))
        # This is not reached, and the watchdog not fed, while the main loop hangs.
        is_overdue = self._stages.reply_wait_seconds > self._notifier.max_silence_seconds
        self._notifier.feed("worker" if is_overdue else ", ".join(self.stuck))
        stages = {stage.name: stage.liveness for stage in self._stages.all}
        self._heartbeat.write(status, {"scan": self._liveness, **stages})

    def _status(self) -> DaemonStatus:
        stages, intake = self._stages, self._intake
        model, currents = stages.model, stages.currents
        watch = "polling" if intake.polling else "events" if intake.watching else "scans only"
        degraded = [
            *(str(part) for part in self._outages if part.ongoing),
            *stages.outages,
            *intake.degraded,
            *self._observers.errors,
            *(f"{part}: nothing has moved for {STUCK_SECONDS:g} s" for part in self.stuck),
        ]
        return DaemonStatus(
            pid=os.getpid(),
            version=__version__,
            started=self._started,
            model=model.bundle.name if model else "",
            engine=model.engine.info if model else None,
            generator_pid=stages.generator_pid,
            warm=stages.warm,
            watch=watch,
            filesystem=intake.filesystem,
            inbox=intake.waiting + len(self._requests),
            stages=stages.waiting,
            current=currents[0] if currents else None,
            currents=currents,
            hosts=stages.hosts,
            degraded=degraded,
            irregular=intake.irregular,
            defects=stages.context.defects.counts(),
        )
