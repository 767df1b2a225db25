"""An admission with real claims, index and plans, and stages that only record their jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.jobs import crash_suspects
from fluxdrop.jobs.claim import NewJob
from fluxdrop.jobs.crash_suspects import CrashSuspects
from fluxdrop.jobs.job import Job, StageName
from fluxdrop.jobs.store import Store
from fluxdrop.publish.publisher import Publisher
from fluxdrop.service.admission import Admission
from fluxdrop.service.stages.stages import Stages
from support.fakes import job_of
from support.stages import context_of


class RecordingStages:
    """Records the jobs that the admission gives to the stages. The publisher is a real one."""

    def __init__(self, root: Root, store: Store) -> None:
        self.context = context_of(root.work)
        self.max_prompts = 16
        self.publisher = Publisher(root, store)
        self.accepted: list[Job] = []
        self.refused: list[tuple[Job, StageName, FluxdropError]] = []
        self.cancelled: list[str] = []
        self.accept: Callable[[Job], None] = self.accepted.append
        self.cancel = self.cancelled.append

    def refuse(self, job: Job, stage: StageName, error: FluxdropError) -> None:
        """See `Stages.refuse`."""
        self.refused.append((job, stage, error))

    def publish_planned(self, folders: Sequence[Path]) -> None:
        """See `Stages.publish_planned`."""
        plans = [(folder, self.publisher.planned(folder)) for folder in folders]
        self.publisher.perform([(folder, plan) for folder, plan in plans if plan is not None])


class Bench:
    """An admission with the parts that it needs."""

    def __init__(self, root: Root, store: Store) -> None:
        self.root = root
        self.store = store
        self.is_root_available = True
        self.restart()

    def restart(self) -> None:
        """Replace the admission, as a new daemon does, which knows only the folders and the index."""
        self.stages = RecordingStages(self.root, self.store)
        stages = cast(Stages, self.stages)
        self.admission = Admission(self.root, self.store, stages, 3, lambda: self.is_root_available)

    def claim(self, *sources: str) -> list[Job]:
        """Claim a file for each source; return the jobs."""
        return [job_of(self.root, source, source.encode()) for source in sources]

    def add(self, *sources: str) -> list[Job]:
        """Claim a file for each source and add it to the admission; return the jobs."""
        made = self.claim(*sources)
        for job in made:
            self.admission.add(NewJob(job.folder))
        return made

    def die_over(self, *of: Job, times: int = 1) -> None:
        """Let as many daemons as *times* says die over the jobs *of*."""
        for _ in range(times):
            made = CrashSuspects(self.root, "preprocess")
            file = self.root.state / "in-preprocess"
            with suppress(KeyboardInterrupt), made.over(of):
                left = file.read_bytes()
                raise KeyboardInterrupt
            made.close()
            file.write_bytes(left)
            if times > 1:
                crash_suspects.count_deaths(self.root)

    @property
    def admitted(self) -> list[str]:
        """The files of the admitted jobs, in order."""
        return [job.source for job in self.stages.accepted]
