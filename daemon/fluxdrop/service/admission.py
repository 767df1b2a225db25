"""Decide which claimed jobs start, in which order, and how many more may be claimed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from fluxdrop import failpoints
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.jobs import crash_suspects
from fluxdrop.jobs.claim import NewJob, discard_unclaimed, finish_rename, read_claim
from fluxdrop.jobs.crash_suspects import Died
from fluxdrop.jobs.input_state import state_of
from fluxdrop.jobs.job import Job, claimed_row, open_job
from fluxdrop.jobs.parts import remove_if_undecided
from fluxdrop.jobs.store import Store
from fluxdrop.logs import get_logger
from fluxdrop.service.inbox_recovery import remove_published_names
from fluxdrop.service.rewritten_jobs import RewrittenJobs
from fluxdrop.service.spare_recovery import recover_spares
from fluxdrop.service.stages.stages import Stages

log = get_logger("fluxdrop.daemon")


class Admission:
    """Queue of claimed jobs on their way to the stages.

    Only the main loop's thread may use it.
    """

    def __init__(
        self,
        root: Root,
        store: Store,
        stages: Stages,
        max_pictures: int,
        is_root_available: Callable[[], bool],
    ) -> None:
        """Create an empty queue.

        Args:
            root: The root that the daemon serves.
            store: The index, which learns of a job before a stage does.
            stages: What admitted jobs are given to.
            max_pictures: How many pictures may be claimed and unfinished at a time.
            is_root_available: Returns whether `.fluxdrop/` is still the folder that was locked.
                While it is not, nothing is claimed or admitted.
        """
        self._root = root
        self._store = store
        self._stages = stages
        self._max_pictures = max_pictures
        self._is_root_available = is_root_available
        self._in_flight: dict[bool, set[str]] = {True: set(), False: set()}
        """The ids of the admitted jobs that have not ended: prompts under True, all others under False."""
        self._claims: deque[NewJob] = deque()
        """Claimed jobs that are not admitted yet."""
        self.rewritten = RewrittenJobs(root.work, lambda: stages.settings)
        """The jobs that are done again when their inputs have settled."""
        self._suspects: dict[str, Died] = {}
        """The jobs over which an earlier daemon may have died, by their ids."""

    @property
    def busy(self) -> bool:
        """Return whether any job is claimed and has not ended."""
        return bool(self._claims or any(self._in_flight.values()))

    def add(self, job: NewJob) -> None:
        """Queue a claimed job."""
        self._claims.append(job)

    def recover(self) -> None:
        """Take up what an earlier run left: publish decided results and queue the other claimed jobs.

        May be called again after an error.

        Raises:
            OSError: The disk is full or not available.
        """
        self._claims.clear()
        self._suspects.clear()
        self.rewritten.clear()
        crash_suspects.count_deaths(self._root)
        recover_spares(self._root, self._store)
        remove_published_names(self._root, self._store)
        found = sorted(
            path for path in self._root.work.iterdir() if path.is_dir() and not path.is_symlink()
        )
        jobs = [recovered for folder in found if (recovered := self._inspect(folder))]
        remaining = [folder for folder in found if folder.exists()]
        self._stages.publisher.forget_gone(remaining)
        self._store.keep_claims(folder.name for folder in remaining)
        ended = self._publish_planned([job.folder for job, _died in jobs])
        for job, died in jobs:
            job_id = job.folder.name
            if job.folder in ended:
                continue
            if died:
                log.warning("the daemon died over a job", job=job_id, **died._asdict())
                self._suspects[job_id] = died
                self._claims.appendleft(job)
            else:
                log.info("taken up again", job=job_id)
                self._claims.append(job)

    def admit(self) -> None:
        """Give the stages each queued job that may start now; the others stay queued.

        A job that cannot be read is left alone in its folder, with a line in the log.

        Raises:
            Exception: A transient error in opening a job, or an error of the index or the
                stages. The jobs that it concerns stay queued.
        """
        if not self._is_root_available():
            return
        self._claims.extend(self.rewritten.take_settled())
        jobs: deque[Job] = deque()
        held_up: Exception | None = None
        try:
            for _ in range(len(self._claims)):
                if self._has_to_wait(self._claims[0].folder.name):
                    self._claims.rotate(-1)
                    continue
                try:
                    job = self._open(self._claims[0])
                except Exception as error:
                    # The error may concern this job alone, so try the next.
                    held_up = error
                    self._claims.rotate(-1)
                    continue
                self._claims.popleft()
                if job is not None:
                    jobs.append(job)
            if jobs:
                self._store.claimed(map(claimed_row, jobs))
            while jobs:
                self._begin(jobs[0])
                jobs.popleft()
        except Exception:
            for job in reversed(jobs):
                self._claims.appendleft(NewJob(job.folder, state=job.input_state))
            raise
        if held_up is not None:
            raise held_up

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Cancel those of the given jobs that are admitted and have not ended."""
        for job_id in job_ids:
            # A request may name any job, but only an admitted one has a folder to be cancelled in.
            if any(job_id in ids for ids in self._in_flight.values()):
                log.info("cancelled", job=job_id)
                self._stages.cancel(job_id)

    def remove(self, job_id: str) -> None:
        """Forget a job that has ended."""
        for ids in self._in_flight.values():
            ids.discard(job_id)
        self._suspects.pop(job_id, None)

    def has_room(self, is_prompt: bool) -> bool:
        """Return whether one more prompt (or else picture) may be claimed."""
        if self._suspects or not self._is_root_available():
            return False
        limit = self._stages.max_prompts if is_prompt else self._max_pictures
        return len(self._claims) + len(self._in_flight[is_prompt]) < limit

    def _inspect(self, folder: Path) -> tuple[NewJob, Died | None] | None:
        """Tidy up a folder in work/; return its job and how the daemon died over it, if it did.

        Returns None if the folder holds no job, and is removed, or holds something that cannot be
        used, and is left alone. Raises only transient errors.
        """
        publisher = self._stages.publisher
        try:
            if publisher.remove_if_ended(folder) or remove_if_undecided(folder):
                return None
            claim = read_claim(folder)
            is_planned = publisher.planned(folder) is not None
            if claim is not None:
                finish_rename(self._root.inbox, claim)
            elif not is_planned:
                discard_unclaimed(folder, self._root.refused)
                return None
            # The plan of a failed job moves its input to the final name, so a planned job may have no claim.
            return NewJob(folder, None if is_planned else claim), crash_suspects.deaths(folder)
        except Exception as error:
            if self._stages.context.is_transient(error):
                raise
            self._skip(folder, error)
            return None

    def _skip(self, folder: Path, error: Exception) -> None:
        if isinstance(error, OSError):
            log.error("left alone", job=folder.name, reason=str(error))
        else:
            self._stages.context.defects.record("recovery", error, job=folder.name)

    def _publish_planned(self, folders: Sequence[Path]) -> set[Path]:
        """Publish the folders whose names an earlier run decided; return those that need nothing more.

        That is, those that were published or have to be left alone. A folder that cannot be
        published as planned loses its plan, and its job is done again.
        """
        planned = [folder for folder in folders if self._stages.publisher.planned(folder)]
        try:
            self._stages.publish_planned(planned)
            return set(planned)
        except Exception as error:
            if self._stages.context.is_transient(error):
                raise
        published = set()
        for folder in planned:
            try:
                self._stages.publish_planned([folder])
                published.add(folder)
            except Exception as error:
                if self._stages.context.is_transient(error):
                    raise
                self._stages.context.defects.record("recovery", error, job=folder.name)
                try:
                    self._stages.publisher.withdraw(folder)
                except Exception as another:
                    if self._stages.context.is_transient(another):
                        raise
                    self._skip(folder, another)
                    published.add(folder)
        return published

    def _has_to_wait(self, job_id: str) -> bool:
        """Return whether a job may not start yet.

        Suspects come first, each with no other job admitted, so that another death of the daemon
        can only be that job's fault.
        """
        if job_id in self._suspects:
            return any(ids - {job_id} for ids in self._in_flight.values())
        return bool(self._suspects)

    def _open(self, new: NewJob) -> Job | None:
        """Open a claimed job and count it as admitted; return None if there is none that can be read.

        Raises only transient errors.
        """
        folder = new.folder
        job = None
        try:
            job = open_job(folder, new.claim)
            if job is None:
                discard_unclaimed(folder, self._root.refused)
        except FluxdropError as error:
            log.error("left alone", job=folder.name, reason=error.message)
        except Exception as error:
            if self._stages.context.is_transient(error):
                raise
            self._stages.context.defects.record("claims", error, job=folder.name)
        if job is None:
            self.remove(folder.name)
            return None
        job.input_state = new.state or state_of(job.input)
        self._in_flight[job.kind == "prompt"].add(job.id)
        return job

    def _begin(self, job: Job) -> None:
        failpoints.reach("job-in-index")
        died = self._suspects.get(job.id)
        if died and died.deaths >= crash_suspects.MAX_DEATHS:
            row = self._store.get(job.id)
            job.attempts = row.attempts if row else 0
            self._stages.refuse(job, died.stage, died.error(job))
        else:
            job.suspect = died is not None
            self._stages.accept(job)
