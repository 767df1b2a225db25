"""The stage that publishes results."""

from __future__ import annotations

from collections.abc import Callable

from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.claim import NewJob
from fluxdrop.jobs.job import Job
from fluxdrop.logs import get_logger
from fluxdrop.publish.outcome import Finished
from fluxdrop.publish.publisher import Published, Publisher
from fluxdrop.records.result import Record, Result
from fluxdrop.records.short_answer import short_answer
from fluxdrop.service.mailbox import Abandoned, Claimed, Ended, Mailbox
from fluxdrop.service.stages.stage import Batch, Handler
from fluxdrop.service.supervision.process_deaths import ProcessDeaths

log = get_logger("fluxdrop.daemon")


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

    def handle(self, batch: Batch[Finished]) -> None:
        """See `Handler.handle`."""
        self.announce(self.publisher.publish(batch.unsettled))

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
