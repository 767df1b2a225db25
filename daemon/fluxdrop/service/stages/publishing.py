"""The stage that publishes results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from fluxdrop.errors import FluxdropError
from fluxdrop.intake.writers import is_open_for_writing
from fluxdrop.jobs.claim import NewJob
from fluxdrop.jobs.job import Job
from fluxdrop.jobs.rewritten import (
    detach_input,
    discard_results,
    is_rewritten,
    is_written_by_others,
)
from fluxdrop.logs import get_logger
from fluxdrop.publish.outcome import Finished
from fluxdrop.publish.publisher import Published, Publisher
from fluxdrop.records.result import Record, Result
from fluxdrop.records.short_answer import short_answer
from fluxdrop.service.mailbox import Abandoned, Claimed, Ended, Mailbox, Rewritten
from fluxdrop.service.stages.handler import Batch, Handler
from fluxdrop.service.supervision.process_deaths import ProcessDeaths

log = get_logger("fluxdrop.daemon")

_MAX_REWRITES = 3
_WRITTEN_LATER = (
    "The file was written to after it was read; what was written then is not in this result."
)


class Publishing(Handler[Finished]):
    """Publishes jobs in batches, with one sync per step, and reports their ends to the main loop."""

    name = "publish"
    batch_size = 128

    def __init__(
        self,
        publisher: Publisher,
        mailbox: Mailbox,
        deaths: ProcessDeaths,
        *,
        fail: Callable[[Job, FluxdropError], None],
        worker_pid: Callable[[str], int | None],
    ) -> None:
        """Set up the stage.

        Args:
            publisher: Gives the files their names.
            mailbox: Gets the ended jobs.
            deaths: Forgets the ended jobs.
            fail: Called with a job that cannot be published, and the error, to have it
                published as failed. A job for which that is not possible either stays claimed.
            worker_pid: Returns the process id of the worker that runs the model with a SHA-256, for the log.
        """
        self.publisher = publisher
        self._mailbox = mailbox
        self._deaths = deaths
        self._fail = fail
        self._worker_pid = worker_pid
        self._rewrites: Counter[str] = Counter()
        """How often the input of each job was written to, by the jobs' ids."""

    def handle(self, batch: Batch[Finished]) -> None:
        """See `Handler.handle`."""
        for item in batch.unsettled:
            with batch.guard(item):
                if self._may_change(item.job) and (self._is_void(item) or not self._detach(item)):
                    self._send_back(item)
                    batch.settle(item)
        if batch:
            self.announce(self.publisher.publish(batch.unsettled))

    def _may_change(self, job: Job) -> bool:
        """Return whether somebody may write to the input of *job*, and none of its files is published yet."""
        return is_written_by_others(job) and not self.publisher.planned(job.folder)

    def _is_void(self, item: Finished) -> bool:
        """Return whether the input was written to after it was taken, and the job can be done again."""
        job = item.job
        if not is_rewritten(job, self.publisher.max_copied_bytes, has_failed=item.has_failed):
            return False
        if job.options.part is not None:
            # The other parts have copies of what was read.
            if _WRITTEN_LATER not in job.warnings:
                job.warnings.append(_WRITTEN_LATER)
            return False
        return not (item.has_failed and self._rewrites[job.id] >= _MAX_REWRITES)

    def _detach(self, item: Finished) -> bool:
        """Copy the input if it is to be published and a program still has it open, so that its digest stays true.

        Return False if it was written to meanwhile. Raises OSError.
        """
        job = item.job
        if (
            job.sha256 is None
            or all(path != job.input for path, _ in item.files)
            or not is_open_for_writing(job.input)
        ):
            return True
        is_unchanged = detach_input(job, self.publisher.max_copied_bytes)
        # The other parts have copies of what was read.
        return is_unchanged or job.options.part is not None

    def _send_back(self, item: Finished) -> None:
        """Have a job done again, or failed if that was tried often enough. Raises OSError."""
        job = item.job
        if self._rewrites[job.id] >= _MAX_REWRITES:
            job.sha256 = None
            message = f"{job.name} is not whole: it is still being written"
            hint = "Drop it once more when nothing writes to it any more."
            self._fail(job, FluxdropError(message, hint=hint, kind="incomplete"))
            return
        discard_results(job.folder)
        self._rewrites[job.id] += 1
        log.warning("done again", job=job.id, file=job.source, reason="it was written to meanwhile")
        self._mailbox.post(Rewritten(job.folder))

    def fail(self, item: Finished, error: FluxdropError) -> None:
        """See `Handler.fail`."""
        self.publisher.withdraw(item.job.folder)
        if item.has_failed:
            log.error("left claimed until the next start", job=item.job.id, reason=error.message)
            self._mailbox.post(Abandoned(item.job.id))
        else:
            self._fail(item.job, error)

    def announce(self, published: Published) -> None:
        """Log published jobs and report them to the main loop.

        The main loop calls this, too, for what it publishes at the start.
        """
        for record, path in published.records:
            self._log(record, path)
            self._deaths.forget(record.job_id)
            self._rewrites.pop(record.job_id, None)
        if published.records:
            self._mailbox.post(Ended(published.records))
        if published.void:
            self._mailbox.post(Claimed([NewJob(folder) for folder in published.void]))

    def _log(self, record: Record, path: str) -> None:
        if isinstance(record, Result):
            best = {"p": round(record.top[0].p, 4)} if record.top else {}
            log.info(
                "done",
                job=record.job_id,
                file=record.source.file,
                result=path,
                label=short_answer(record),
                **best,
                engine=record.model.engine,
                backend=record.model.backend,
                worker_pid=self._worker_pid(record.model.sha256),
            )
        else:
            log.warning(
                "failed",
                job=record.job_id,
                file=record.source.file,
                result=path,
                stage=record.error.stage,
                reason=record.error.message,
            )
