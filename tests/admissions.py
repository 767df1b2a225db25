"""An admission with real claims, index and plans, and a line that keeps what it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from fakes import job_of
from stages import context_of

from fluxdrop.errors import FluxdropError
from fluxdrop.intake.claim import NewJob
from fluxdrop.jobs import danger
from fluxdrop.jobs.danger import Danger
from fluxdrop.jobs.job import Job, Stage
from fluxdrop.jobs.store import Store
from fluxdrop.layout import Root
from fluxdrop.publish.publisher import Publisher
from fluxdrop.service.admission import Admission
from fluxdrop.service.line import Line


class FakeLine:
    """A line that keeps what it was given. Its publisher is a real one, as a daemon's is that was just started."""

    def __init__(self, root: Root, store: Store) -> None:
        self.context = context_of(root.work)
        self.publisher = Publisher(root, store)
        self.accepted: list[Job] = []
        self.refused: list[tuple[Job, Stage, FluxdropError]] = []
        self.cancelled: list[str] = []
        self.accept: Callable[[Job], None] = self.accepted.append
        self.cancel = self.cancelled.append

    def refuse(self, job: Job, stage: Stage, error: FluxdropError) -> None:
        """See `Line.refuse`."""
        self.refused.append((job, stage, error))

    def publish_decided(self, folders: Sequence[Path]) -> None:
        """See `Line.publish_decided`."""
        plans = [(folder, self.publisher.planned(folder)) for folder in folders]
        self.publisher.perform([(folder, plan) for folder, plan in plans if plan is not None])


class Bench:
    """An admission with what it needs."""

    def __init__(self, root: Root, store: Store) -> None:
        self.root = root
        self.store = store
        self.is_there = True
        self.restart()

    def restart(self) -> None:
        """Another daemon begins, with what the folders and the index know."""
        self.line = FakeLine(self.root, self.store)
        line = cast(Line, self.line)
        self.admission = Admission(self.root, self.store, line, 3, lambda: self.is_there)

    def claim(self, *sources: str) -> list[Job]:
        """New claims."""
        return [job_of(self.root, source, source.encode()) for source in sources]

    def add(self, *sources: str) -> list[Job]:
        """New claims that are to be taken on."""
        made = self.claim(*sources)
        for job in made:
            self.admission.add(NewJob(job.folder))
        return made

    def die_over(self, *of: Job, times: int = 1) -> None:
        """Daemons end over *of*, so many *times*."""
        for _ in range(times):
            made = Danger(self.root, "preprocess")
            file = self.root.state / "in-preprocess"
            with suppress(KeyboardInterrupt), made.over(of):
                left = file.read_bytes()
                raise KeyboardInterrupt
            made.close()
            file.write_bytes(left)
            if times > 1:
                danger.count_deaths(self.root)

    @property
    def taken(self) -> list[str]:
        """The files of the jobs that were taken on, in their order."""
        return [job.source for job in self.line.accepted]
