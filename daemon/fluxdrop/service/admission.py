"""Which claimed jobs are taken on, in which order, and how many more there is room for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fluxdrop import failpoints
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.jobs import crash_suspects
from fluxdrop.jobs.claim import NewJob, discard_unclaimed, finish_rename, without_unclaimed
from fluxdrop.jobs.crash_suspects import Died
from fluxdrop.jobs.job import Job, claimed_row, open_job
from fluxdrop.jobs.parts import without_undecided
from fluxdrop.jobs.store import Store
from fluxdrop.logs import get_logger
from fluxdrop.service.spare_recovery import recover_spares
from fluxdrop.service.stages.stages import Stages

log = get_logger("fluxdrop.daemon")

_MAX_PROMPTS = 16


class Admission:
    """Takes claims on to *stages*, while *is_root_available* says that the root's state is the one that was locked. Owned
    by the main loop.
    """

    def __init__(
        self,
        root: Root,
        store: Store,
        stages: Stages,
        max_pictures: int,
        is_root_available: Callable[[], bool],
    ) -> None:
        self._root = root
        self._store = store
        self._stages = stages
        self._max_pictures = max_pictures
        self._is_root_available = is_root_available
        self._in_flight: dict[bool, set[str]] = {True: set(), False: set()}
        """The ids of the prompts that are in flight, and of the others."""
        self._claims: deque[NewJob] = deque()
        """What is claimed and not yet in the index and with the first stage."""
        self._suspects: dict[str, Died] = {}
        """What the daemon may have died of."""

    @property
    def busy(self) -> bool:
        """Whether anything is in hand, or waits to be."""
        return bool(self._claims or any(self._in_flight.values()))

    def add(self, job: NewJob) -> None:
        """*job* is to be taken on."""
        self._claims.append(job)

    def recover(self) -> None:
        """Finish what an earlier run had given its names, and queue what else it had claimed. Raises OSError
        where the disk is in the way; it may be called again then.
        """
        self._claims.clear()
        self._suspects.clear()
        crash_suspects.count_deaths(self._root)
        recover_spares(self._root, self._store)
        found = sorted(
            path for path in self._root.work.iterdir() if path.is_dir() and not path.is_symlink()
        )
        deaths = {folder: died for folder in found for died in self._inspect(folder)}
        remaining = [folder for folder in found if folder.exists()]
        self._stages.publisher.forget_gone(remaining)
        self._store.keep_claims(folder.name for folder in remaining)
        folders = [folder for folder in remaining if folder in deaths]
        ended = self._publish_planned(folders)
        for folder in folders:
            if folder in ended:
                continue
            if died := deaths[folder]:
                log.warning("the daemon died over a job", job=folder.name, **died._asdict())
                self._suspects[folder.name] = died
                self._claims.appendleft(NewJob(folder))
            else:
                log.info("taken up again", job=folder.name)
                self._claims.append(NewJob(folder))

    def admit(self) -> None:
        """Take on what may begin; what may not yet, or could not because of what is raised, stays."""
        if not self._is_root_available():
            return
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
                    # It may be this one's alone.
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
                self._claims.appendleft(NewJob(job.folder))
            raise
        if held_up is not None:
            raise held_up

    def cancel(self, job_ids: Sequence[str]) -> None:
        """End those of *job_ids* that are in hand."""
        for job_id in job_ids:
            # An order may name anything, but only what is in hand has a folder to be cancelled in.
            if any(job_id in ids for ids in self._in_flight.values()):
                log.info("cancelled", job=job_id)
                self._stages.cancel(job_id)

    def remove(self, job_id: str) -> None:
        """The job is no longer in hand."""
        for ids in self._in_flight.values():
            ids.discard(job_id)
        self._suspects.pop(job_id, None)

    def has_room(self, is_prompt: bool) -> bool:
        """Whether one more prompt, or picture, may be claimed."""
        if self._suspects or not self._is_root_available():
            return False
        limit = _MAX_PROMPTS if is_prompt else self._max_pictures
        return len(self._claims) + len(self._in_flight[is_prompt]) < limit

    def _inspect(self, folder: Path) -> Iterator[Died | None]:
        """How the daemon died over the job in *folder*, if it did; nothing where that holds no job, and is removed, or
        holds what nobody can use, and is left alone. Raises what passes."""
        try:
            kept = self._stages.publisher.without_ended([folder])
            kept = without_undecided(kept)
            # A failed input may have been moved to its name before a kill: the plan says the rest.
            if kept and self._stages.publisher.planned(folder) is None:
                kept = without_unclaimed(kept, self._root.refused)
            if kept:
                finish_rename(self._root.inbox, folder)
                yield crash_suspects.deaths(folder)
        except Exception as error:
            if self._stages.context.passes(error):
                raise
            self._skip(folder, error)

    def _skip(self, folder: Path, error: Exception) -> None:
        if isinstance(error, OSError):
            log.error("left alone", job=folder.name, reason=str(error))
        else:
            self._stages.context.defects.record("recovery", error, job=folder.name)

    def _publish_planned(self, folders: Sequence[Path]) -> set[Path]:
        """Give what has a plan its names; return the folders of what got them, or is left alone. What cannot get them
        is taken on anew."""
        planned = [folder for folder in folders if self._stages.publisher.planned(folder)]
        try:
            self._stages.publish_planned(planned)
            return set(planned)
        except Exception as error:
            if self._stages.context.passes(error):
                raise
        published = set()
        for folder in planned:
            try:
                self._stages.publish_planned([folder])
                published.add(folder)
            except Exception as error:
                if self._stages.context.passes(error):
                    raise
                self._stages.context.defects.record("recovery", error, job=folder.name)
                try:
                    self._stages.publisher.withdraw(folder)
                except Exception as another:
                    if self._stages.context.passes(another):
                        raise
                    self._skip(folder, another)
                    published.add(folder)
        return published

    def _has_to_wait(self, job_id: str) -> bool:
        """Whether *job_id* may not begin yet. What the daemon may have died of comes first, each
        with nothing else in hand, so that another death is that job's alone.
        """
        if job_id in self._suspects:
            return any(ids - {job_id} for ids in self._in_flight.values())
        return bool(self._suspects)

    def _open(self, new: NewJob) -> Job | None:
        """The job *new*, which is in hand from now on; None where there is none that can be read. Raises what
        passes."""
        folder = new.folder
        job = None
        try:
            job = open_job(folder, new.claim)
            if job is None:
                discard_unclaimed(folder, self._root.refused)
        except FluxdropError as error:
            log.error("left alone", job=folder.name, reason=error.message)
        except Exception as error:
            if self._stages.context.passes(error):
                raise
            self._stages.context.defects.record("claims", error, job=folder.name)
        if job is None:
            self.remove(folder.name)
            return None
        self._in_flight[job.kind == "prompt"].add(job.id)
        return job

    def _begin(self, job: Job) -> None:
        failpoints.reach("job-in-index")
        died = self._suspects.get(job.id)
        if died and died.deaths >= crash_suspects.MOST_DEATHS:
            row = self._store.get(job.id)
            job.attempts = row.attempts if row else 0
            self._stages.refuse(job, died.stage, died.error(job))
        else:
            job.suspect = died is not None
            self._stages.accept(job)
