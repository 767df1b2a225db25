"""All stages of a daemon in a real root, with an engine and a generator of the tests' own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.jobs.fault import Fault
from fluxdrop.jobs.job import Job, claimed_row
from fluxdrop.jobs.store import Store
from fluxdrop.publish import outcome
from fluxdrop.service.mailbox import (
    Abandoned,
    Claimed,
    Ended,
    Mailbox,
    Message,
    ModelChanged,
    ModelRefused,
)
from fluxdrop.service.shutdown import Shutdown
from fluxdrop.service.stages import make_hands, model_opening, preprocessing
from fluxdrop.service.stages.stages import Stages
from support.daemons import PATIENCE, failures, results
from support.fakes import ANGULAR, FakeEngine, FakeGenerator, full, job_of
from support.jobs import BUNDLE


class Bench:
    """Stages with the parts that they need, and what the main loop was told."""

    def __init__(self, root: Root, store: Store, generator: FakeGenerator) -> None:
        self.root = root
        self.store = store
        self.generator = generator
        self.engines: list[FakeEngine] = []
        """The engines that were opened."""
        self.next: Callable[[], FakeEngine] = FakeEngine
        self.mailbox = Mailbox()
        self.messages: list[Message] = []
        self.stages = Stages(root, Settings(), store, self.mailbox, Shutdown())

    def open_engine(self, *_arguments: object, **_options: object) -> FakeEngine:
        """See `fluxdrop.predict.choose_engine.open_engine`."""
        self.engines.append(self.next())
        return self.engines[-1]

    def accept(self, source: str, data: bytes, *, fault: Fault | None = None) -> Job:
        """A new job that the stages have accepted."""
        job = job_of(self.root, source, data)
        job.fault = fault
        self.store.claimed([claimed_row(job)])
        self.stages.accept(job)
        return job

    def wait(self, is_so: Callable[[], object]) -> None:
        """Wait until the messages make it so."""
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            self.messages += self.mailbox.receive()
            self.stages.check()
            assert time.monotonic() < deadline, self.messages
            time.sleep(0.01)

    def wait_for_ends(self, count: int) -> list[str]:
        """The paths of the records of *count* jobs, which have ended."""
        self.wait(lambda: len(self.ended) >= count)
        return sorted(self.ended)

    def wait_for(self, kind: type[Message]) -> Message:
        """The first message of this *kind*."""
        self.wait(lambda: any(isinstance(one, kind) for one in self.messages))
        return next(one for one in self.messages if isinstance(one, kind))

    @property
    def ended(self) -> list[str]:
        """The paths of the records of the jobs that have ended."""
        ends = [one for one in self.messages if isinstance(one, Ended)]
        return [path for one in ends for _, path in one.records]

    @property
    def reasons(self) -> dict[str, tuple[str, str]]:
        """The stage and the kind of each failure that people see, by the file."""
        found = {name: record["error"] for name, record in failures(self.root).items()}
        return {
            name.removesuffix(".error.json"): (error["stage"], error["kind"])
            for name, error in found.items()
        }


@pytest.fixture
def bench(root: Root, png: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Stages that were started, and are stopped after the test."""
    generator = FakeGenerator(png)
    monkeypatch.setattr(make_hands, "Generator", lambda *_arguments, **_options: generator)
    with closing(Store(root.database)) as store:
        made = Bench(root, store, generator)
        monkeypatch.setattr(model_opening, "open_engine", made.open_engine)
        made.stages.start()
        yield made
        made.stages.stop()
        assert not [stage.name for stage in made.stages.all if not stage.finish(0)]


class Gate:
    """What a thread waits at until the test lets it through."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

    def __call__(self, *_arguments: object, **_options: object) -> None:
        """Wait."""
        self._reached.set()
        assert self._open.wait(PATIENCE)

    def wait(self) -> None:
        """Wait until somebody waits."""
        assert self._reached.wait(PATIENCE)

    def open(self) -> None:
        """Let all through from now on."""
        self._open.set()


def at(gate: Gate, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Have every call of *name* of *owner* wait at *gate* first."""
    real = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        gate()
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


def test_all_kinds(bench: Bench, png: bytes) -> None:
    """Pictures, prompts and what is neither go through their stages to their ends, and the main loop is told of each;
    nothing is left in hand."""
    bench.accept("a.png", png)
    bench.accept("b.txt", b"a circle")
    bench.accept("c.png", b"no picture")
    bench.accept("d.doc", b"text", fault=Fault("unknown", "it is no picture"))
    bench.accept("e.txt", b"half", fault=Fault("incomplete", "it does not grow"))

    ended = bench.wait_for_ends(5)

    assert [
        "outputs/a.json",
        "outputs/b.json",
        "outputs/failed/c.png.error.json",
        "outputs/failed/d.doc.error.json",
        "outputs/failed/e.txt.error.json",
    ] == ended
    assert {"a.json", "b.json"} == set(results(bench.root))
    assert {
        "c.png": ("preprocess", "picture"),
        "d.doc": ("intake", "unknown"),
        "e.txt": ("intake", "incomplete"),
    } == bench.reasons
    assert [] == list(bench.root.work.iterdir())
    assert {"claimed": 0, "done": 2, "failed": 3} == bench.store.counts()


def test_cancelled_prompts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that waits is ended at once when it is cancelled, whatever is made before it; the one that is being
    made is ended after its run."""
    gate = Gate()
    at(gate, monkeypatch, bench.generator, "generate")
    made = bench.accept("a.txt", b"a circle")
    gate.wait()
    waiting = bench.accept("b.txt", b"a star")
    bench.stages.cancel(waiting.id)
    first = bench.wait_for_ends(1)
    bench.stages.cancel(made.id)
    gate.open()
    both = bench.wait_for_ends(2)

    assert ["outputs/failed/b.txt.error.json"] == first
    assert ["outputs/failed/a.txt.error.json", "outputs/failed/b.txt.error.json"] == both
    assert dict.fromkeys(("a.txt", "b.txt"), ("generate", "cancelled")) == bench.reasons
    assert [["a circle"]] == bench.generator.runs


def test_cancelled_picture(bench: Bench, png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that waits is ended in its turn when it is cancelled, and one that was begun is done."""
    gate = Gate()
    at(gate, monkeypatch, preprocessing, "open_picture")
    begun = bench.accept("a.png", png)
    gate.wait()
    waiting = bench.accept("b.png", png)
    for job in (begun, waiting):
        bench.stages.cancel(job.id)
    gate.open()
    bench.wait_for_ends(2)

    assert {"a.json"} == set(results(bench.root))
    assert {"b.png": ("preprocess", "cancelled")} == bench.reasons


def test_cancelling_what_is_not_there(bench: Bench) -> None:
    """To cancel what has already ended does nothing, and leaves nothing in the folder of the jobs."""
    bench.stages.cancel("20261126T000000-00000000")

    assert [] == list(bench.root.work.iterdir())


@pytest.mark.parametrize("source", ["a.txt", "a.png"])
def test_taken_up_cancelled(
    bench: Bench, png: bytes, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """A job that was cancelled before the daemon was started anew ends so, and is taken in once, also while the disk
    has no room."""
    job = job_of(bench.root, source, png)
    job.cancelled.touch()
    bench.store.claimed([claimed_row(job)])
    real = durable.write

    def write(path: Any, *arguments: Any, **options: Any) -> None:
        if path == job.cancelled:
            raise full(str(path))
        real(path, *arguments, **options)

    monkeypatch.setattr(durable, "write", write)
    bench.stages.accept(job)

    assert [f"outputs/failed/{source}.error.json"] == bench.wait_for_ends(1)
    assert ["cancelled"] == [kind for _, kind in bench.reasons.values()]
    assert [] == bench.generator.runs


def broken(*_arguments: object, **_options: object) -> None:
    """Make no record."""
    raise ValueError("not JSON compliant")


def test_result_that_cannot_be_published(
    bench: Bench, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job whose result cannot be published ends as a failure, with its untouched input."""
    monkeypatch.setattr(outcome, "Result", broken)
    bench.accept("a.png", png)

    assert ["outputs/failed/a.png.error.json"] == bench.wait_for_ends(1)
    assert {"a.png": ("publish", "internal")} == bench.reasons
    assert png == (bench.root.failed / "a.png").read_bytes()


def test_failure_that_cannot_be_published(
    bench: Bench, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of which not even the failure can be published stays claimed, with its input; the main loop is told, and
    the stages goes on."""
    monkeypatch.setattr(outcome, "Result", broken)
    with pytest.MonkeyPatch.context() as while_broken:
        while_broken.setattr(outcome, "Failure", broken)
        job = bench.accept("a.png", png)
        told = bench.wait_for(Abandoned)
    bench.accept("b.png", b"no picture")

    assert Abandoned(job.id) == told
    assert ["outputs/failed/b.png.error.json"] == bench.wait_for_ends(1)
    assert (png, [job.folder]) == (job.input.read_bytes(), list(bench.root.work.iterdir()))


def test_parts(bench: Bench) -> None:
    """A file of several pictures becomes as many jobs: the main loop is told of the new ones, and the index knows
    them by then."""
    job = bench.accept("a.txt", b"one\n---\ntwo\n---\nthree")
    told = bench.wait_for(Claimed)

    assert isinstance(told, Claimed)
    expected = [f"{job.id}-2", f"{job.id}-3"]
    assert expected == [part.folder.name for part in told.jobs]
    assert expected == [row.id for row in bench.store.parts(job.id)]
    assert ["outputs/a.json"] == bench.wait_for_ends(1)


def test_change_of_the_model(bench: Bench, png: bytes) -> None:
    """A model that is opened beside the one in use is used when it is there, and the one before has ended by then."""
    bench.accept("a.png", png)
    bench.wait_for_ends(1)
    bench.next = lambda: FakeEngine(answer=ANGULAR)
    bench.stages.open_model(Settings())
    told = bench.wait_for(ModelChanged)
    closes = [engine.closes for engine in bench.engines]
    bench.accept("b.png", png)
    bench.wait_for_ends(2)

    labels = {name: record["top"][0]["label"] for name, record in results(bench.root).items()}
    assert ({"a.json": "round", "b.json": "angular"}, [1, 0]) == (labels, closes)
    assert told == ModelChanged(bench.stages.model)  # type: ignore[arg-type]


def test_warm_before_it_is_used(bench: Bench) -> None:
    """The worker of a model that is changed to has predicted whole batches before it is used."""
    bench.next = lambda: FakeEngine(pid=4711)
    bench.stages.open_model(Settings())
    bench.wait_for(ModelChanged)

    assert [1, Settings().batch_size] == bench.engines[1].batches[:2]


def test_worker_that_fails_while_it_is_warmed_up(bench: Bench, png: bytes) -> None:
    """A worker that cannot predict a whole batch of nothing is closed, and the model in use stays."""

    def fail(batch: object) -> None:
        if len(batch) > 1:  # type: ignore[arg-type]
            raise FluxdropError("too much", kind="worker")

    bench.next = lambda: FakeEngine(pid=4711, on_predict=fail)
    bench.stages.open_model(Settings())
    bench.wait_for(ModelRefused)
    bench.accept("a.png", png)

    assert ["outputs/a.json"] == bench.wait_for_ends(1)
    assert [0, 1] == [engine.closes for engine in bench.engines]


@pytest.mark.parametrize("error", [FluxdropError("no Julia", kind="julia"), MemoryError()])
def test_model_that_cannot_be_opened(bench: Bench, png: bytes, error: Exception) -> None:
    """A model that cannot be opened, whatever the reason, leaves the one in use, and the main loop is told why."""

    def fail() -> FakeEngine:
        raise error

    bench.next = fail
    bench.stages.open_model(Settings())
    told = bench.wait_for(ModelRefused)
    bench.accept("a.png", png)

    assert isinstance(told, ModelRefused)
    assert told.error.kind == ("julia" if isinstance(error, FluxdropError) else "internal")
    assert ["outputs/a.json"] == bench.wait_for_ends(1)
    assert 0 == bench.engines[0].closes


def test_model_that_a_job_names(bench: Bench, png: bytes) -> None:
    """A job that names another model is predicted by that, which is opened when it is needed; where there is none of
    that name, the job alone fails. Both engines end with the stages."""
    (bench.root.models / "mine").symlink_to(BUNDLE.folder)
    for source, name in (("a.png", "mine"), ("b.png", "none"), ("c.png", None)):
        job = job_of(bench.root, source, png)
        job.options = msgspec.structs.replace(job.options, model=name)
        bench.store.claimed([claimed_row(job)])
        bench.stages.accept(job)
    bench.wait_for_ends(3)

    found = {name: record["model"]["bundle"] for name, record in results(bench.root).items()}
    assert {"b.png": ("preprocess", "model")} == bench.reasons
    assert {"a.json": "mine", "c.json": BUNDLE.name}.keys() == found.keys()
    bench.stages.stop()
    assert [1, 1] == [engine.closes for engine in bench.engines]


def test_start_that_fails(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages whose model nothing can run do not start, and say why."""
    error = FluxdropError("There is no Julia on this machine", kind="julia")

    def open_engine(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(model_opening, "open_engine", open_engine)
    with closing(Store(root.database)) as store:
        stages = Stages(root, Settings(), store, Mailbox(), Shutdown())
        with pytest.raises(FluxdropError, match="no Julia") as info:
            stages.start()
        stages.stop()

    assert error is info.value


def test_outages_and_state(bench: Bench) -> None:
    """What keeps the engine from working is told while it does; idle stages are not stuck, and owe nothing."""
    bench.engines[0].outage = "the worker does not start"

    assert ["engine: the worker does not start"] == bench.stages.outages
    assert ([], 0.0, []) == (
        bench.stages.stuck(0.0),
        bench.stages.reply_wait_seconds,
        bench.stages.currents,
    )
    assert bench.generator.pid == bench.stages.generator_pid
