"""The daemon's side of requests/, and what tests of it share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.jobs.claim import NewJob
from fluxdrop.jobs.store import Row, Store
from fluxdrop.publish.publisher import Publisher
from fluxdrop.requests.reader import Requests
from support import jobs

QUICK = {"engine": "onnxruntime", "settle_seconds": 0.1, "scan_seconds": 1}


def nothing(_left: int = 0) -> None:
    pass


def done_job(root: Root, source: str = "cat.png") -> str:
    """The id of a job that was done."""
    finished = jobs.ended(jobs.job_in(jobs.claimed(root, source)))
    with closing(Store(root.database)) as store:
        Publisher(root, store).publish([finished])
    return finished.job.id


def rows(root: Root) -> list[Row]:
    """All that ended."""
    with closing(Store(root.database, read_only=True)) as store:
        return store.latest("done", 100) + store.latest("failed", 100)


class Desk:
    """The daemon's side of requests/, stepped by the test; *room* is for how many more jobs."""

    def __init__(self, root: Root, store: Store) -> None:
        self.accepted: list[Path] = []
        self.used: list[str] = []
        self.told: list[Callable[[FluxdropError | None], None]] = []
        self.cancelled: list[str] = []
        self.room = {True: 1_000_000, False: 1_000_000}
        self.max_bytes = 1000
        self.requests = Requests(
            root,
            store,
            accept=self._accept,
            room=lambda is_prompt: self.room[is_prompt] > 0,
            max_bytes=lambda: self.max_bytes,
            use=self._use,
            cancel=self.cancelled.extend,
        )

    def _accept(self, job: NewJob) -> None:
        self.accepted.append(job.folder)
        self.room[jobs.job_in(job.folder).kind == "prompt"] -= 1

    def _use(self, name: str, told: Callable[[FluxdropError | None], None]) -> None:
        self.used.append(name)
        self.told.append(told)

    def step(self) -> None:
        self.requests._next_look = 0.0
        self.requests.step()


@pytest.fixture
def desk(root: Root) -> Iterator[Desk]:
    with closing(Store(root.database)) as store:
        yield Desk(root, store)
