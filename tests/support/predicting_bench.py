"""A predict stage on a bench: its handler with what it needs, and what came of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fluxdrop.files.layout import Root
from fluxdrop.jobs.crash_suspects import CrashSuspects
from fluxdrop.jobs.job import file_sha256
from fluxdrop.publish.outcome import Finished, build_record
from fluxdrop.records.result import Result
from fluxdrop.service.items import Model, SwapModel, TensorItem
from fluxdrop.service.mailbox import Mailbox
from fluxdrop.service.stages.predicting import Predicting
from fluxdrop.service.stages.stage import Stage
from fluxdrop.service.supervision.defects import Defects
from support.fakes import Ends
from support.jobs import BUNDLE, claimed, job_in, picture
from support.stages import Clock, context_of, run_stage


class Bench:
    """A handler with what it needs, and what came of it."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.ends = Ends()
        self.mailbox = Mailbox()
        self.clock = Clock()
        self.context = context_of(root.work, self.clock)
        self.closes = 0
        """How many times the stage said that it has closed its engine."""

    def prepared(self, model: Model, name: str = "a.png", value: float = 0.0) -> TensorItem:
        """A picture whose tensor for *model*, of nothing but *value*, is there."""
        job = job_in(claimed(self.root, name))
        job.sha256 = file_sha256(job.input)
        tensor = np.full(BUNDLE.spec.input.shape, value, dtype=np.float32)
        return TensorItem(job, model, picture(job), tensor)

    def run(
        self,
        first: Model | Callable[[], Model],
        *items: TensorItem | SwapModel,
    ) -> Stage[TensorItem | SwapModel]:
        """Have *items* handled as one batch, with *first* in use from the start."""
        handler = Predicting(
            8,
            CrashSuspects(self.root, "predict"),
            self.mailbox,
            Defects(),
            open_initial=(lambda: first) if isinstance(first, Model) else first,
            on_close=self._count_close,
            forward=self.ends.forward,
            fail=self.ends.fail,
        )
        return run_stage(handler, self.root.work, *items, context=self.context)

    def _count_close(self) -> None:
        self.closes += 1

    @property
    def handed(self) -> list[list[tuple[str, str]]]:
        """The files that were handed on, call by call, each with the label that won."""
        return [[_told(item) for item in call] for call in self.ends.handed]


def _told(item: object) -> tuple[str, str]:
    assert isinstance(item, Finished)
    record = build_record(item, "name")
    assert isinstance(record, Result)
    return item.job.name, record.top[0].label
