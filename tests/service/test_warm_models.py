"""The models beside the one in use: which stay, which end, and which pictures wait meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.jobs.crash_suspects import CrashSuspects
from fluxdrop.jobs.job import file_sha256
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.engine import EngineDown
from fluxdrop.processes.procfs import resident_bytes
from fluxdrop.publish.outcome import Finished
from fluxdrop.service.items import Model, TensorItem
from fluxdrop.service.mailbox import Mailbox
from fluxdrop.service.stages.predicting import Predicting
from fluxdrop.service.stages.warm_models import WarmModels
from support.daemons import PATIENCE
from support.fakes import Ends, FakeEngine
from support.jobs import BUNDLE, claimed, job_in, picture
from support.stages import Once, context_of


class Bench:
    """Warm models with engines of the test's own, and what came of their pictures."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.ends = Ends()
        self.context = context_of(root.work)
        self.engines: dict[str, FakeEngine] = {}
        """The engine to be given to a model; by default one is made."""
        self.digests: dict[str, str] = {}
        """The SHA-256 of a model, if it has changed."""
        self.opened: list[str] = []
        self.suspects = CrashSuspects(root, "predict")
        self.warm = self.make()

    def make(self, number: int = 8, megabytes: int = 4096) -> WarmModels:
        """Warm models, at most so many and with so much memory."""
        self.warm = WarmModels(
            Settings(batch_size=4, warm_models=number, warm_models_max_bytes=megabytes << 20),
            self.context,
            open_model=self._open,
            make_predicting=self._predicting,
        )
        return self.warm

    def _open(self, name: str, _settings: Settings, _is_installed: bool) -> Model:
        if name.startswith("no"):
            raise FluxdropError(f"There is no model bundle {name}", kind="model")
        self.opened.append(name)
        bundle: Bundle = replace(BUNDLE, name=name, sha256=self.digests.get(name, BUNDLE.sha256))
        return Model(bundle, self.engines.setdefault(name, FakeEngine()))

    def _predicting(
        self, model: Model, opened: Callable[[], Model], closed: Callable[[], None]
    ) -> Predicting:
        return Predicting(
            4,
            self.suspects,
            Mailbox(),
            self.context.defects,
            open_initial=opened,
            on_close=closed,
            forward=self.ends.forward,
            fail=self.ends.fail,
            name=f"predict {model.bundle.name}",
        )

    def put(self, *names: str) -> None:
        """Hand on a picture for each of the models *names*."""
        for name in names:
            job = job_in(claimed(self.root, f"{name}.png"))
            job.sha256 = file_sha256(job.input)
            tensor = np.zeros(BUNDLE.spec.input.shape, dtype=np.float32)
            assert self.warm.put(TensorItem(job, self.warm.model(name), picture(job), tensor))

    def admit(self, *names: str) -> None:
        """Wait until there is room for *names*, and open them."""
        wait(lambda: self.warm.has_room(names))
        for name in names:
            self.warm.model(name)

    @property
    def names(self) -> list[str]:
        """The models that are warm, sorted."""
        return sorted(one.name for one in self.warm.status(lambda _name: []))


def wait(is_so: Callable[[], object]) -> None:
    """Wait until *is_so*."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def bench(root: Root) -> Iterator[Bench]:
    """A bench whose models end after the test."""
    made = Bench(root)
    yield made
    made.warm.finish()
    made.suspects.close()


def test_least_recently_used_ends(bench: Bench) -> None:
    """Beyond the number that may be warm, the model ends that was used longest ago, after its last picture; no more
    are ever open at a time."""
    bench.make(2)
    bench.admit("a")
    bench.admit("b")
    bench.put("b", "a")
    bench.admit("c")
    wait(lambda: len(bench.ends.handed) == 2)

    assert ["a", "c"] == bench.names
    assert (0, 1) == (bench.engines["a"].closes, bench.engines["b"].closes)
    assert ["a", "b", "c"] == bench.opened


def test_waits_for_the_one_that_ends(bench: Bench) -> None:
    """While the model that has to end is still at work, the one that takes its place is not opened; the one that
    works has all its pictures done."""
    gate = threading.Event()

    def hold(_batch: NDArray[np.float32]) -> None:
        assert gate.wait(PATIENCE)

    bench.make(1)
    bench.engines["a"] = FakeEngine(on_predict=hold)
    bench.admit("a")
    bench.put("a", "a")
    refused = [bench.warm.has_room(["b"]) for _ in range(3)]
    gate.set()
    bench.admit("b")

    assert ([False] * 3, ["b"], 1) == (refused, bench.names, bench.engines["a"].closes)
    assert 2 == sum(map(len, bench.ends.handed))


def test_models_that_answer_together(bench: Bench) -> None:
    """Models that one picture needs do not end for each other, even if they are more than may be warm."""
    bench.make(1)
    bench.admit("a", "b", "c")

    assert ["a", "b", "c"] == bench.names


def test_memory(bench: Bench) -> None:
    """The least recently used models end while all need too much memory, and the last one stays."""
    bench.make(megabytes=(resident_bytes(os.getpid()) >> 20) * 3 // 2)
    for name in "abc":
        # Its worker is as large as this process, as it were.
        bench.engines[name] = FakeEngine(pid=os.getpid())
    for name in "abc":
        bench.warm.model(name)
    bench.warm.trim()
    wait(lambda: bench.engines["a"].closes + bench.engines["b"].closes == 2)

    assert ["c"] == bench.names


def test_full_queue_holds_up_no_other(bench: Bench) -> None:
    """A model whose queue is full has no room until it goes on, and then it says so; another has room meanwhile."""
    gate, told = threading.Event(), threading.Event()

    def hold(_batch: NDArray[np.float32]) -> None:
        assert gate.wait(PATIENCE)

    bench.engines["a"] = FakeEngine(on_predict=hold)
    bench.admit("a", "b")
    bench.put("a")
    wait(lambda: bench.engines["a"].batches)
    bench.put(*"a" * 8)
    full = bench.warm.has_room(["a"]), bench.warm.has_room(["b"]), bench.warm.has_room(["a", "b"])
    bench.put("b")
    wait(lambda: bench.ends.handed)
    first = [type(item).__name__ for item in bench.ends.handed[0]]
    bench.warm.recheck = told.set
    gate.set()
    assert told.wait(PATIENCE)
    wait(lambda: bench.warm.has_room(["a"]))

    assert ((False, True, False), ["Finished"]) == (full, first)


def test_engine_that_is_down_holds_up_no_other(bench: Bench) -> None:
    """The pictures of a model whose worker cannot be started wait, which is told, while those of another are done."""
    gate = threading.Event()
    down = EngineDown("the worker does not start", kind="worker")
    bench.engines["a"] = FakeEngine(prepare=Once(*[down] * 3))
    bench.context = replace(bench.context, wait=lambda _seconds: gate.wait(PATIENCE))
    bench.make()
    bench.admit("a", "b")
    bench.put("a", "b")
    wait(lambda: bench.ends.handed)
    (finished,) = bench.ends.handed[0]
    told = [str(stage.outage) for stage in bench.warm.stages]
    gate.set()
    wait(lambda: len(bench.ends.handed) == 2)

    assert isinstance(finished, Finished)
    assert ("b.png", []) == (finished.job.name, bench.ends.failed)
    assert ["predict a: the worker does not start.", ""] == told


def test_warm_up(bench: Bench) -> None:
    """At a reload the models open that folders name now, those end that none names or that changed, and one that is
    missing is told."""
    bench.warm.warm_up(["a", "b"], reopen_all=False)
    before = [*bench.names]
    bench.digests["b"] = "0" * 64
    bench.warm.warm_up(["b", "c", "no"], reopen_all=False)

    assert (["a", "b"], ["b", "c"]) == (before, bench.names)
    assert ["model no: There is no model bundle no."] == bench.warm.problems
    wait(lambda: bench.engines["a"].closes == 1 and bench.engines["b"].closes == 1)
    bench.warm.warm_up(["b", "c"], reopen_all=False)
    assert [] == bench.warm.problems
