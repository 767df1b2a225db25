"""The main loop: the one thread that scans the inbox, takes claims on, changes settings and says how it all is."""

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
from fluxdrop.logs import file_trouble, get_logger
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
)
from fluxdrop.service.reporting.heartbeat import Beat, Heartbeat, summary
from fluxdrop.service.reporting.notify import Notifier
from fluxdrop.service.reporting.observers import Observers
from fluxdrop.service.shutdown import Shutdown
from fluxdrop.service.stages.stages import Stages
from fluxdrop.service.supervision.liveness import STUCK_SECONDS, Liveness
from fluxdrop.timestamps import now

log = get_logger("fluxdrop.daemon")

_PAUSE_SECONDS = 1.0


class MainLoop:
    """Calls its parts in turns, until the daemon is to end or, with *once*, there is nothing left to do.

    What passes is told and tried again in the next turn; a defect in one part is logged, and the others go on.
    *is_there* says whether the root's state is the one that was locked.
    """

    def __init__(
        self,
        root: Root,
        store: Store,
        stages: Stages,
        intake: Intake,
        admission: Admission,
        mailbox: Mailbox,
        reports: Observers,
        notifier: Notifier,
        shutdown: Shutdown,
        *,
        load: Callable[[], Settings],
        is_there: Callable[[], bool],
        once: bool,
    ) -> None:
        self._root = root
        self._stages = stages
        self._intake = intake
        self._admission = admission
        self._mailbox = mailbox
        self._reports = reports
        self._notifier = notifier
        self._shutdown = shutdown
        self._load = load
        self._is_there = is_there
        self._once = once
        self._changes = Changes(stages)
        self._requests = Requests(
            root,
            store,
            accept=admission.add,
            room=admission.has_room,
            most_bytes=lambda: stages.settings.max_file_bytes,
            use=self._use_model,
            cancel=admission.cancel,
        )
        self._reload: Reload | None = None
        self._heartbeat = Heartbeat(root.heartbeat)
        self._started = now()
        self._pulse = Liveness()
        self._scan_trouble = OutageTracker("scan")
        self._messages_trouble = OutageTracker("messages")
        self._requests_trouble = OutageTracker("requests")
        self._jobs_trouble = OutageTracker("jobs")
        self._changes_trouble = OutageTracker("settings")
        self._heartbeat_trouble = OutageTracker("heartbeat")
        self._state_trouble = OutageTracker("state")
        self._log_trouble = OutageTracker("log file")
        self._troubles = (
            self._scan_trouble,
            self._messages_trouble,
            self._requests_trouble,
            self._jobs_trouble,
            self._changes_trouble,
            self._heartbeat_trouble,
            self._state_trouble,
            self._log_trouble,
        )
        self.reload_wanted = False
        """Set by any thread to have the settings read anew."""
        self.done = 0
        self.failed = 0

    @property
    def hung(self) -> list[str]:
        """The parts that have work and did not move on for two minutes; any thread may ask."""
        hung = self._stages.stuck(STUCK_SECONDS)
        return [*hung, "scan"] if self._pulse.silence > STUCK_SECONDS else hung

    def run(self) -> None:
        """Go on until it is to end. Raises what ended a stage before its time."""
        self._pulse.adopt()
        self._recover()
        self._notifier.ready(self._stages.longest_answer)
        while not self._shutdown.begun:
            self._turn()
            if self._once and not self._busy:
                return

    def read_mailbox(self) -> None:
        """Do what the messages that are there ask for."""
        for message in self._mailbox.receive():
            self._attempt(self._messages_trouble, partial(self._handle, message))

    @property
    def _busy(self) -> bool:
        return bool(
            self._intake.waiting or self._requests or self._admission.busy or self._changes.busy
        )

    def _recover(self) -> None:
        while not self._attempt(self._jobs_trouble, self._admission.recover):
            if self._shutdown.wait(_PAUSE_SECONDS):
                return

    def _turn(self) -> None:
        # A generation's progress is worth a fresher heartbeat than an idle daemon's.
        longest = 0.2 if self._once else 1.0 if self._stages.current else 5.0
        step = partial(self._intake.step, min(longest, self._notifier.patience))
        self._attempt(self._scan_trouble, step)
        self._pulse.beat()
        self._stages.check()
        self.read_mailbox()
        if self._is_there():
            self._attempt(self._requests_trouble, self._requests.step)
        self._attempt(self._jobs_trouble, self._take)
        self._attempt(self._changes_trouble, self._change)
        self._look_around()
        self._attempt(self._heartbeat_trouble, self._tell)

    def _attempt(self, trouble: OutageTracker, work: Callable[[], object]) -> bool:
        """Do *work*; False when it has to be done again, because of *trouble* that may pass or of a defect."""
        try:
            return trouble.attempt(work, lambda _error: True)
        except Exception as error:
            self._stages.context.defects.record("main loop", error)
            # Not at once again: it may be so each time.
            self._shutdown.wait(_PAUSE_SECONDS)
            return False

    def _handle(self, message: Message) -> None:
        match message:
            case Ended(records):
                for record, path in records:
                    self._reports.ended(record, path)
                    self._admission.ended(record.job_id)
                    if isinstance(record, Failure):
                        self.failed += 1
                    else:
                        self.done += 1
            case Claimed(jobs):
                for job in jobs:
                    self._admission.add(job)
            case Abandoned(job_id):
                self._admission.ended(job_id)
                self.failed += 1
            case ModelChanged():
                self._changes.opened()
            case ModelRefused(error):
                self._changes.refused(error)

    def _take(self) -> None:
        with hold_io_lock():
            self._admission.take()

    def _use_model(self, name: str, tell: Callable[[FluxdropError | None], None]) -> None:
        self._changes.ask(UseModel(self._stages, name, tell))

    def _change(self) -> None:
        if self.reload_wanted and (self._reload is None or self._reload.done):
            self.reload_wanted = False
            self._reload = Reload(
                self._root, self._load, self._stages, self._intake, self._notifier
            )
            self._changes.ask(self._reload)
        self._changes.step()

    def _look_around(self) -> None:
        """See whether .fluxdrop/ is still the one that was locked, and the log file takes lines."""
        if reason := file_trouble():
            self._log_trouble.begin(reason)
            log.debug("log file tried again")
        else:
            self._log_trouble.end()
        if self._is_there():
            self._state_trouble.end()
        else:
            self._state_trouble.begin(
                "it is gone, or another is in its place", str(self._root.state)
            )

    def _tell(self) -> None:
        """Say how the daemon is, to whom it may concern."""
        beat = self._beat()
        self._reports.beat(beat)
        self._notifier.status(summary(beat))
        # Not reached while the main loop hangs.
        is_owed = self._stages.owed > self._notifier.patience
        self._notifier.feed("worker" if is_owed else ", ".join(self.hung))
        pulses = {stage.name: stage.pulse for stage in self._stages.threads}
        self._heartbeat.write(beat, {"scan": self._pulse, **pulses})

    def _beat(self) -> Beat:
        stages, intake = self._stages, self._intake
        model = stages.model
        watch = "polling" if intake.polling else "events" if intake.watching else "scans only"
        trouble = [
            *map(str, filter(None, self._troubles)),
            *stages.trouble,
            *intake.trouble,
            *self._reports.trouble,
            *(f"{part}: nothing has moved for {STUCK_SECONDS:g} s" for part in self.hung),
        ]
        return Beat(
            pid=os.getpid(),
            version=__version__,
            started=self._started,
            model=model.bundle.name if model else "",
            engine=model.engine.info if model else None,
            generator_pid=stages.generator_pid,
            watch=watch,
            filesystem=intake.filesystem,
            inbox=intake.waiting + len(self._requests),
            stages={stage.name: stage.waiting for stage in stages.threads},
            current=stages.current,
            trouble=trouble,
            defects=stages.context.defects.counts(),
        )
