"""The handler of the stage preprocess with what it needs, in a real root, and what came of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from io import BytesIO
from typing import Any

import msgspec
import pytest
from PIL import Image

from fluxdrop.config import Settings
from fluxdrop.files.layout import Root
from fluxdrop.jobs.crash_suspects import CrashSuspects
from fluxdrop.jobs.job import Job, claimed_row
from fluxdrop.jobs.store import Store
from fluxdrop.service.items import Model, PictureItem, SwapModel, TensorItem
from fluxdrop.service.mailbox import Mailbox
from fluxdrop.service.stages.model_choice import ModelChoice
from fluxdrop.service.stages.pending_jobs import PendingJobs
from fluxdrop.service.stages.predicting import Predicting
from fluxdrop.service.stages.preprocessing import Preprocessing
from fluxdrop.service.stages.stage import Stage
from fluxdrop.service.stages.warm_models import WarmModels
from support.fakes import Ends, job_of, model
from support.stages import context_of, run_stage


def png(width: int = 64, colour: int = 0) -> bytes:
    """A picture *width* pixels wide."""
    file = BytesIO()
    Image.new("L", (width, 64), colour).save(file, format="PNG")
    return file.getvalue()


def large_png(seed: int, side: int = 300) -> bytes:
    """A picture of *side* x *side* pixels whose file is decoded on a thread of its own."""
    file = BytesIO()
    Image.frombytes("L", (side, side), random.Random(seed).randbytes(side * side)).save(file, "PNG")
    return file.getvalue()


class Bench:
    """A handler with what it needs, and what came of it. *other* opens a model that a job or a folder names."""

    def __init__(self, root: Root, store: Store) -> None:
        self.root = root
        self.store = store
        self.ends = Ends()
        self.waiting = PendingJobs()
        self.first = model()
        self.settings = Settings(batch_size=8)
        self.other: Callable[[str], Model] = lambda _name: model()
        self.context = context_of(root.work)
        self.warm = WarmModels(
            self.settings,
            self.context,
            open_model=lambda name, _settings, _is_installed: self.other(name),
            make_predicting=self._predicting,
        )
        self.choice = ModelChoice(
            self.settings,
            self.warm,
            has_room=lambda: True,
            is_named=lambda bundle, name: bundle.name == name,
        )
        self.choice.model = self.first

    def job(self, source: str, data: bytes, **asked: Any) -> Job:
        """A job that waits for its first stage; *asked* is in its options."""
        job = job_of(self.root, source, data)
        job.options = msgspec.structs.replace(job.options, **asked)
        self.store.claimed([claimed_row(job)])
        self.waiting.add(job)
        return job

    def handler(self) -> Preprocessing:
        """The stage's handler, with the first model in use."""
        self.choice.apply(self.settings)
        return Preprocessing(
            self.settings,
            self.store,
            self.waiting,
            CrashSuspects(self.root, "preprocess"),
            self.choice,
            forward=self.ends.forward,
            fail=self.ends.fail,
        )

    def _predicting(
        self, _model: Model, opened: Callable[[], Model], on_close: Callable[[], None]
    ) -> Predicting:
        return Predicting(
            8,
            CrashSuspects(self.root, "predict"),
            Mailbox(),
            self.context.defects,
            open_initial=opened,
            on_close=on_close,
            forward=self.ends.forward,
            fail=self.ends.fail,
        )

    def run(self, *items: PictureItem | SwapModel) -> Preprocessing:
        """Have *items* handled as one batch."""
        handler = self.handler()
        stage = run_stage(handler, self.root.work, *items, context=self.context)
        assert stage.failure is None
        return handler

    def run_alone(self, *of: Job) -> None:
        """Have the pictures of *of* handled one after the other, each when the one before is gone."""
        stage = Stage(self.handler(), self.context)
        stage.start()
        for job in of:
            stage.put(PictureItem(job))
            while stage.waiting:
                time.sleep(0.001)
        assert stage.finish(60)

    @property
    def handed(self) -> list[tuple[object, ...]]:
        """What was handed on: the jobs' files for what was prepared."""
        return [
            tuple(item.job.name if isinstance(item, TensorItem) else item for item in call)
            for call in self.ends.handed
        ]

    def attempts(self, *items: Job) -> list[int]:
        """How many attempts the index has of each job."""
        rows = [self.store.get(job.id) for job in items]
        return [row.attempts for row in rows if row is not None]


@pytest.fixture
def bench(root: Root) -> Iterator[Bench]:
    """A bench with an index of its own."""
    with closing(Store(root.database)) as store:
        made = Bench(root, store)
        yield made
        made.warm.finish()
