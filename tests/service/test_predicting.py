"""The stage that runs the model, with real jobs in a real root and engines of the tests' own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.jobs.crash_suspects import CrashSuspects
from fluxdrop.predict.engine import EngineDown
from fluxdrop.predict.on_demand import OnDemandEngine
from fluxdrop.processes.child import ChildDied
from fluxdrop.publish.outcome import Finished, build_record
from fluxdrop.records.result import Result
from fluxdrop.service.answer_set import AnswerSet
from fluxdrop.service.items import Model, SwapModel, TensorItem
from fluxdrop.service.mailbox import ModelChanged
from fluxdrop.service.stages.predicting import Predicting
from fluxdrop.service.supervision.defects import Defects
from support.fakes import ANGULAR, ROUND, FakeEngine, in_danger, model
from support.jobs import BUNDLE
from support.predicting_bench import Bench
from support.stages import Once, run_stage

BAD = 7.0
"""What the tensor of the picture holds over which something goes wrong."""


@pytest.fixture
def bench(root: Root) -> Bench:
    """A bench of the test's own."""
    return Bench(root)


def over_bad(fail: Callable[[], object]) -> Callable[[NDArray[np.float32]], None]:
    """What calls *fail* over a batch with the bad picture."""

    def on_predict(batch: NDArray[np.float32]) -> None:
        if (batch == BAD).any():
            fail()

    return on_predict


def three(bench: Bench, used: Model) -> list[TensorItem]:
    """Three pictures, the bad one in their midst."""
    return [
        bench.prepared(used, name, value)
        for name, value in (("a.png", 0.0), ("b.png", BAD), ("c.png", 0.0))
    ]


ALL = [("a.png", "round"), ("b.png", "round"), ("c.png", "round")]


def test_batch(bench: Bench) -> None:
    """Pictures for one model that wait together are one forward pass, and are handed on together in their order."""
    engine = FakeEngine()
    used = model(engine)

    stage = bench.run(used, *three(bench, used))

    assert ([3], [ALL]) == (engine.batches, bench.handed)
    assert ([], None) == (bench.ends.failed, stage.failure)


def test_several_models(bench: Bench) -> None:
    """Each picture is predicted by its own model, in the order in which they came."""
    one, other = FakeEngine(), FakeEngine(answer=ANGULAR)
    first, secondary = model(one), model(other)
    items = [bench.prepared(used) for used in (first, first, secondary, first)]

    bench.run(first, *items)

    assert ([2, 1], [1]) == (one.batches, other.batches)
    assert [["round", "round"], ["angular"], ["round"]] == [
        [label for _, label in call] for call in bench.handed
    ]


def test_swap_in_its_order(bench: Bench) -> None:
    """A model ends behind the last of its pictures, and the main loop is told which is in use."""
    open_at: list[int] = []

    def look(_batch: NDArray[np.float32]) -> None:
        open_at.append(old.closes)

    old = FakeEngine(on_predict=look)
    new = FakeEngine(on_predict=look, answer=ANGULAR)
    first, then = model(old), model(new)
    stage = bench.run(
        first, bench.prepared(first), SwapModel(then), bench.prepared(then), bench.prepared(then)
    )

    assert [0, 1] == open_at
    assert (1, 1) == (old.closes, new.closes)
    assert [ModelChanged(then)] == list(bench.mailbox.receive())
    assert ("angular", None) == (bench.handed[-1][0][1], stage.failure)


def test_swap_to_the_model_in_use(bench: Bench) -> None:
    """A change to the model in use ends no engine."""
    engine = FakeEngine()
    used = model(engine)

    bench.run(used, SwapModel(used), bench.prepared(used))

    assert ([1], 1) == (engine.batches, engine.closes)
    assert [ModelChanged(used)] == list(bench.mailbox.receive())


def test_swap_from_an_engine_that_does_not_close(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new model is in use, and the main loop told so once, even where the old one's engine fails to end."""
    old = FakeEngine()
    monkeypatch.setattr(old, "close", Once(RuntimeError("it hangs")))
    then = model(FakeEngine())

    bench.run(model(old), SwapModel(then), bench.prepared(then))

    assert [ModelChanged(then)] == list(bench.mailbox.receive())
    assert 1 == len(bench.handed)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FluxdropError("The model cannot take it", kind="compute"), "compute"),
        (MemoryError(), "internal"),
        (ValueError("shapes do not match"), "internal"),
    ],
)
def test_error_over_one(bench: Bench, error: Exception, kind: str) -> None:
    """A picture over which the engine fails, whatever it raises, fails alone; the others are done in their order,
    and the danger file is blank."""
    engine = FakeEngine(on_predict=over_bad(Once(*[error] * 9)))
    used = model(engine)

    bench.run(used, *three(bench, used))

    assert [3, 1, 1, 1] == engine.batches
    assert [[ALL[0]], [ALL[2]]] == bench.handed
    assert [("b.png", "predict", kind)] == bench.ends.reasons
    assert [] == in_danger(bench.root, "predict")


def test_row_that_is_no_probability(bench: Bench) -> None:
    """A picture for which the model gives rubbish fails alone, without another forward pass for the others."""

    class Odd(FakeEngine):
        def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            rows = super().predict(batch)
            rows[(batch == BAD).any(axis=(1, 2, 3))] = np.nan
            return rows

    engine = Odd()
    used = model(engine)
    bench.run(used, *three(bench, used))

    assert ([3], [[ALL[0], ALL[2]]]) == (engine.batches, bench.handed)
    assert [("b.png", "predict", "model")] == bench.ends.reasons


def test_rows_that_are_too_few(bench: Bench) -> None:
    """Answers that cannot be told apart are nobody's: the pictures are predicted again, alone."""

    class Short(FakeEngine):
        def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            return super().predict(batch)[: max(1, len(batch) - 1)]

    engine = Short()
    used = model(engine)
    bench.run(used, *three(bench, used))

    assert ([3, 1, 1, 1], [[one] for one in ALL]) == (engine.batches, bench.handed)
    assert [] == bench.ends.failed


def test_worker_that_dies_over_one(bench: Bench) -> None:
    """A picture that costs three workers fails; those that came with it are done."""
    deaths = [ChildDied("the worker was ended by SIGSEGV") for _ in range(9)]
    engine = FakeEngine(pid=1, on_predict=over_bad(Once(*deaths)))
    used = model(engine)

    bench.run(used, *three(bench, used))

    assert [3, 1, 1, 1, 1, 1] == engine.batches
    assert ([[ALL[0]], [ALL[2]]], [("b.png", "predict", "worker")]) == (
        bench.handed,
        bench.ends.reasons,
    )


def test_worker_that_dies_once(bench: Bench) -> None:
    """What was handed on before a worker died is not predicted again."""
    one, other = FakeEngine(pid=1), FakeEngine(pid=2, on_predict=Once(ChildDied("dead")))
    first, secondary = model(one), model(other)

    bench.run(first, bench.prepared(first, "a.png"), bench.prepared(secondary, "b.png"))

    assert ([1], [1, 1], [[ALL[0]], [ALL[1]]]) == (one.batches, other.batches, bench.handed)


def test_engine_that_is_down(bench: Bench) -> None:
    """While an engine cannot be started its pictures wait, and none fails."""
    down = EngineDown("the worker does not start", kind="worker")
    engine = FakeEngine(on_predict=Once(*[down] * 4))
    used = model(engine)

    bench.run(used, *three(bench, used))

    assert ([3] * 5, [ALL], []) == (engine.batches, bench.handed, bench.ends.failed)
    assert [0.5, 1, 2, 4] == bench.clock.waits


@pytest.mark.parametrize("pid", [None, 1])
def test_in_danger(bench: Bench, pid: int | None) -> None:
    """Pictures are in danger while an engine in the daemon's own process has them, and not while a worker has."""
    seen: list[list[str]] = []
    engine = FakeEngine(
        pid=pid, on_predict=lambda _batch: seen.append(in_danger(bench.root, "predict"))
    )
    used = model(engine)
    items = three(bench, used)
    bench.run(used, *items)

    assert [[] if pid else [item.job.id for item in items]] == seen
    assert [] == in_danger(bench.root, "predict")


@pytest.mark.parametrize("pid", [None, 1])
def test_engine_on_demand(bench: Bench, pid: int | None) -> None:
    """Nothing is in danger while the first batch of an engine has it opened, whose worker may be killed then; the
    batch is in danger after that if there is no worker."""
    seen: list[list[str]] = []

    def look(_batch: NDArray[np.float32] | None = None) -> None:
        seen.append(in_danger(bench.root, "predict"))

    def open_engine() -> FakeEngine:
        look()
        return FakeEngine(pid=pid, on_predict=look)

    secondary = Model(BUNDLE, OnDemandEngine(open_engine))
    item = bench.prepared(secondary)
    bench.run(model(), item)

    assert [[], [] if pid else [item.job.id]] == seen
    assert [[ALL[0]]] == bench.handed


def test_engine_on_demand_that_cannot_be_opened(bench: Bench) -> None:
    """Pictures for a model that nothing here runs fail for that reason; those for the model in use are done."""

    def open_engine() -> FakeEngine:
        raise FluxdropError("There is no Julia on this machine", kind="julia")

    used, secondary = model(), Model(BUNDLE, OnDemandEngine(open_engine))
    bench.run(used, bench.prepared(secondary, "x.png"), bench.prepared(used, "a.png"))

    assert ([[ALL[0]]], [("x.png", "predict", "julia")]) == (bench.handed, bench.ends.reasons)


def test_first_engine_that_cannot_be_opened(bench: Bench) -> None:
    """A daemon whose model nothing runs ends with the reason; one whose engine is down waits for it."""
    error = FluxdropError("There is no Julia on this machine", kind="julia")
    fail = Once(EngineDown("no memory"), error)

    def open_initial() -> Model:
        fail()
        return model()

    stage = bench.run(open_initial)

    assert (error, [0.5]) == (stage.failure, bench.clock.waits)


def test_owed(bench: Bench) -> None:
    """The engine owes an answer from the moment it is asked until it answers or fails."""
    seen: list[bool] = []
    fail = Once(ChildDied("dead"))

    def on_predict(_batch: NDArray[np.float32]) -> None:
        seen.append(handler.reply_wait_seconds > 0)
        fail()

    engine = FakeEngine(on_predict=on_predict)
    used = model(engine)
    handler = Predicting(
        8,
        CrashSuspects(bench.root, "predict"),
        bench.mailbox,
        Defects(),
        open_initial=lambda: used,
        on_close=lambda: None,
        forward=bench.ends.forward,
        fail=bench.ends.fail,
    )
    before = handler.reply_wait_seconds
    run_stage(handler, bench.root.work, bench.prepared(used), context=bench.context)

    assert (0.0, [True, True], 0.0) == (before, seen, handler.reply_wait_seconds)


def test_end_of_the_stage(bench: Bench) -> None:
    """At its end the stage ends the engine in use, and says so."""
    engine = FakeEngine(answer=ROUND)

    bench.run(model(engine))

    assert (1, 1) == (engine.closes, bench.closes)


def several(bench: Bench, *models: Model) -> list[TensorItem]:
    """A picture that all of *models* are to answer."""
    answers = AnswerSet(len(models))
    item = bench.prepared(models[0])
    return [
        replace(item, model=used, answers=answers, number=number)
        for number, used in enumerate(models)
    ]


def test_several_models_of_one_picture(bench: Bench) -> None:
    """A picture that several models answer ends once, whichever is last, with an entry for each in their order; the
    result's own fields are the first one's."""
    one, other = model(FakeEngine()), model(FakeEngine(answer=ANGULAR))
    items = several(bench, one, other)

    bench.run(one, *reversed(items))

    ((end,),) = bench.ends.handed
    assert isinstance(end, Finished)
    record = build_record(end, "name")
    assert isinstance(record, Result)
    assert "round" == record.top[0].label
    assert ["round", "angular"] == [entry.top[0].label for entry in record.predictions]
    assert record.predictions[0].probabilities == record.probabilities


def test_one_of_several_models_fails(bench: Bench) -> None:
    """If one of several models fails, the picture fails once, when all have answered, and the reason names it."""
    error = FluxdropError("it cannot take it", kind="compute")
    one, other = model(FakeEngine(on_predict=Once(error, error))), model(FakeEngine())
    items = several(bench, one, other)

    bench.run(one, *items)

    ((job, stage, told),) = bench.ends.failed
    assert (items[0].job, "predict", "compute", []) == (job, stage, told.kind, bench.handed)
    assert f"The model {BUNDLE.name}: it cannot take it." == told.message
