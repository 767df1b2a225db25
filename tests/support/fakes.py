"""An engine and a generator that answer as a test wants, and what keeps account of what a stage did."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.generate.generator import GenerationOrder
from fluxdrop.generate.messages import GeneratedImage
from fluxdrop.generate.parameters import Generated, PromptParameters
from fluxdrop.generate.pipeline_process import OnStep, Result
from fluxdrop.jobs.job import Job, StageName
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.processes.child import ChildDied
from fluxdrop.service.items import Model
from support import jobs
from support.stages import Once

ANGULAR, ROUND = (0.75, 0.25), (0.25, 0.75)


def full(path: str = "a file") -> OSError:
    """What a full disk raises."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


@dataclass
class Ends:
    """What a stage handed on, call by call, and the jobs that it failed, with the stages and reasons."""

    handed: list[tuple[object, ...]] = field(default_factory=list)
    failed: list[tuple[Job, StageName, FluxdropError]] = field(default_factory=list)

    def forward(self, *items: object) -> None:
        """See `Stage.put`."""
        self.handed.append(items)

    def fail(self, job: Job, stage: StageName, error: FluxdropError) -> None:
        """See `Stages.fail`."""
        self.failed.append((job, stage, error))

    @property
    def reasons(self) -> list[tuple[str, StageName, str]]:
        """The files that failed, with the stages and the kinds of the errors."""
        return [(job.name, stage, error.kind) for job, stage, error in self.failed]


class FakeEngine:
    """An engine that answers each picture with *answer*. *prepare* and *on_predict* are called first; *pid* is that
    of its worker, if it has one."""

    def __init__(
        self,
        *,
        answer: Sequence[float] = ROUND,
        pid: int | None = None,
        prepare: Callable[[], None] = lambda: None,
        on_predict: Callable[[NDArray[np.float32]], object] = lambda _batch: None,
    ) -> None:
        self.info = EngineInfo(engine="fake", backend="fake", version="1", pid=pid)
        self.outage = ""
        self.batches: list[int] = []
        """How many pictures were in each forward pass that was begun."""
        self.closes = 0
        self._answer = answer
        self._prepare = prepare
        self._on_predict = on_predict

    def prepare(self) -> None:
        """See `Engine.prepare`."""
        self._prepare()

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Engine.predict`."""
        self.batches.append(len(batch))
        self._on_predict(batch)
        return np.array([self._answer] * len(batch), dtype=np.float32)

    def check_health(self) -> None:
        """See `Engine.check_health`."""

    def close(self) -> None:
        """See `Engine.close`."""
        self.closes += 1


class FakeGenerator:
    """A generator whose every picture is *png*."""

    pid: int | None = 4711

    def __init__(self, png: bytes) -> None:
        self._png = png
        self._fail = Once()
        self.runs: list[list[str]] = []
        """The prompts of each run that was made."""
        self.closes = 0
        self.slots = 1
        self._number = 0
        self._in_hand: dict[int, Sequence[GenerationOrder]] = {}
        self._lost: list[ChildDied] = []

    def fail_with(self, *errors: BaseException) -> None:
        """Have the next runs raise *errors*, one each."""
        self._fail = Once(*errors)

    def lose_next(self, death: ChildDied) -> None:
        """Have one of the processes die with the next run, but not the generator."""
        self._lost.append(death)

    def batch_key(self, parameters: PromptParameters) -> Hashable:
        """See `Generator.batch_key`: pictures of the same size are made together."""
        return parameters.width

    def generate(
        self,
        orders: Sequence[GenerationOrder],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[GeneratedImage]:
        """See `Generator.generate`."""
        self.runs.append([order.parameters.prompt for order in orders])
        if on_progress is not None:
            on_progress(1, 2)
        self._fail()
        return [GeneratedImage(self._png, _generated(order.parameters)) for order in orders]

    @property
    def room(self) -> int:
        """See `Generator.room`."""
        return self.slots - len(self._in_hand)

    def begin(self, orders: Sequence[GenerationOrder]) -> int:
        """See `Generator.begin`."""
        self._number += 1
        self._in_hand[self._number] = orders
        return self._number

    def finished(self, timeout: float, on_step: OnStep) -> dict[int, Result]:
        """See `Generator.finished`: the first run in hand is made; ChildDied is the end of all of them."""
        del timeout
        if not self._in_hand:
            return {}
        number = next(iter(self._in_hand))
        if self._lost:
            del self._in_hand[number]
            return {number: self._lost.pop()}
        try:
            images = self.generate(
                self._in_hand.pop(number), lambda step, steps: on_step(number, step, steps)
            )
            return {number: images}
        except ChildDied:
            self._in_hand = {}
            raise
        except FluxdropError as error:
            return {number: error}

    def check_health(self) -> None:
        """See `Generator.check_health`."""

    def stop_if_idle(self) -> None:
        """See `Generator.stop_if_idle`."""

    def close(self) -> None:
        """See `Generator.close`."""
        self._in_hand = {}
        self.closes += 1


def _generated(parameters: PromptParameters) -> Generated:
    made_with = msgspec.structs.replace(jobs.GENERATED.parameters, prompt=parameters.prompt)
    return msgspec.structs.replace(jobs.GENERATED, parameters=made_with)


def model(engine: FakeEngine | None = None) -> Model:
    """The embedded bundle on *engine*."""
    return Model(jobs.BUNDLE, engine or FakeEngine())


def job_of(root: Root, source: str, data: bytes) -> Job:
    """A new job whose claimed input *source* holds *data*."""
    job = jobs.job_in(jobs.claimed(root, source))
    job.input.write_bytes(data)
    return job


def in_danger(root: Root, stage: str) -> list[str]:
    """The jobs over which the daemon would die in *stage*, if it died now."""
    lines: list[bytes] = (root.state / f"in-{stage}").read_bytes().split()
    return [os.fsdecode(line) for line in lines[1:]]


def read(path: Path) -> NDArray[np.float32]:
    """The tensor in the file *path*."""
    tensor: NDArray[np.float32] = np.load(path)
    return tensor
