"""The stage that turns prompts into pictures, with real jobs in a real root and generators of the tests' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.generate.generator import Generator
from fluxdrop.generate.hands import Hands
from fluxdrop.generate.local_hands import LocalHands
from fluxdrop.generate.prompt_file import read_prompt, read_prompts
from fluxdrop.jobs.claim import NewJob
from fluxdrop.jobs.job import Job, claimed_row
from fluxdrop.jobs.store import Store
from fluxdrop.processes.child import ChildDied
from fluxdrop.service.items import PictureItem, PromptItem
from fluxdrop.service.shutdown import Stopping
from fluxdrop.service.stages import prompt_reader
from fluxdrop.service.stages.generating import Generating
from fluxdrop.service.stages.pending_jobs import PendingJobs
from fluxdrop.service.stages.stage import Stage
from support.fakes import Ends, FakeGenerator, full, job_of
from support.jobs import GENERATED
from support.stages import Clock, context_of, run_stage

SETTINGS = Settings(generator_batch_size=8)


class Bench:
    """A handler with what it needs, and what came of it."""

    def __init__(self, root: Root, store: Store, png: bytes) -> None:
        self.root = root
        self.store = store
        self.png = png
        self.ends = Ends()
        self.waiting = PendingJobs()
        self.clock = Clock()
        self.context = context_of(root.work, self.clock)
        self.made: list[FakeGenerator] = []
        """The generators that were made."""
        self.announced: list[list[NewJob]] = []
        self.announce: Callable[[list[NewJob]], None] = self.announced.append
        self.handler = Generating(
            SETTINGS,
            store,
            self.waiting,
            make_hands=self._make,
            forward=self.ends.forward,
            fail=self.ends.fail,
            announce=lambda _job, parts: self.announce(parts),
        )

    def _make(self, _settings: Settings) -> Hands:
        self.made.append(FakeGenerator(self.png))
        return LocalHands(cast(Generator, self.made[-1]))

    def prompt(self, name: str, text: str = "a circle") -> PromptItem:
        """A prompt that waits for its picture."""
        return PromptItem(self.accepted(job_of(self.root, name, text.encode())))

    def accepted(self, job: Job) -> Job:
        """*job*, in the index and waiting."""
        self.store.claimed([claimed_row(job)])
        self.waiting.add(job)
        return job

    def run(self, *items: PromptItem, errors: tuple[BaseException, ...] = ()) -> Stage[PromptItem]:
        """Have *items* handled as one batch by a generator that raises *errors* first."""
        self.made[0].fail_with(*errors)
        stage = run_stage(self.handler, self.root.work, *items, context=self.context)
        assert stage.failure is None
        return stage

    @property
    def runs(self) -> list[list[str]]:
        """The prompts of each run of the first generator."""
        return self.made[0].runs

    @property
    def pictured(self) -> list[str]:
        """The files whose pictures were handed on, each of which has to lie in its job's folder."""
        items = [item for call in self.ends.handed for item in call]
        assert all(isinstance(item, PictureItem) for item in items)
        found = cast(list[PictureItem], items)
        assert all(item.generated is not None for item in found)
        assert all(item.job.image.read_bytes() == self.png for item in found)
        assert all(item.job.generation.exists() for item in found)
        return [item.job.name for item in found]

    def attempts(self, *items: PromptItem) -> list[tuple[int, int]]:
        """How many attempts each job has had, by itself and by the index."""
        rows = [self.store.get(item.job.id) for item in items]
        return [
            (item.job.attempts, row.attempts)
            for item, row in zip(items, rows, strict=True)
            if row is not None
        ]


@pytest.fixture
def bench(root: Root, png: bytes) -> Iterator[Bench]:
    """A bench with an index of its own."""
    with closing(Store(root.database)) as store:
        yield Bench(root, store, png)


def failing(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: range, error: Exception
) -> None:
    """Have those *calls* of *name* of *owner* raise *error*, counted from 0."""
    real, number = getattr(owner, name), iter(range(1000))

    def call(*arguments: object, **options: object) -> object:
        if next(number) in calls:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


def test_runs(bench: Bench) -> None:
    """Prompts that can share a run of the pipeline do, the others have their own; each is handed on once, with one
    attempt."""
    wide = "a square\nSteps: 20, Seed: 1, Size: 128x64"
    items = [bench.prompt("a.txt"), bench.prompt("b.txt", wide), bench.prompt("c.txt", "a star")]

    bench.run(*items)

    assert [["a circle", "a star"], ["a square"]] == bench.runs
    assert ["a.txt", "c.txt", "b.txt"] == bench.pictured
    assert [(1, 1)] * 3 == bench.attempts(*items)
    assert [] == bench.ends.failed


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "prompt"),
        (b"\xff\xfea", "prompt"),
        (b"a\nSteps: 0", "prompt"),
        (b"a" * 99999, "prompt"),
    ],
)
def test_prompt_that_cannot_be_read(bench: Bench, data: bytes, kind: str) -> None:
    """A prompt that cannot be read fails alone and with a hint; the others of its batch are made in one run."""
    items = [bench.prompt("a.txt"), bench.prompt("b.txt"), bench.prompt("c.txt")]
    items[1].job.input.write_bytes(data)

    bench.run(*items)

    assert ([["a circle"] * 2], ["a.txt", "c.txt"]) == (bench.runs, bench.pictured)
    assert [("b.txt", "generate", kind)] == bench.ends.reasons
    assert bench.ends.failed[0][2].hint


@pytest.mark.parametrize("is_open", [True, False])
def test_prompt_that_is_still_open(bench: Bench, is_open: bool) -> None:
    """A prompt that a program still has open, which was waited for in vain, is done with a word of that."""
    item = bench.prompt("a.txt")
    with item.job.input.open("ab" if is_open else "rb"):
        bench.run(item)

    assert ["a.txt"] == bench.pictured
    assert is_open is any("still had the file open" in warning for warning in item.job.warnings)


def test_defect_over_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt over which fluxdrop itself fails is internal, and alone in that."""

    def read(text: str, most: int, max_steps: int, seed: int | None) -> object:
        if text == "a star":
            raise RecursionError
        return read_prompts(text, most, max_steps, seed)

    monkeypatch.setattr(prompt_reader, "read_prompts", read)
    bench.run(bench.prompt("a.txt"), bench.prompt("b.txt", "a star"))

    assert (["a.txt"], [("b.txt", "generate", "internal")]) == (bench.pictured, bench.ends.reasons)


def test_generator_that_refuses_one(bench: Bench) -> None:
    """What the generator cannot do together is done alone, and costs no further attempt."""
    errors = [FluxdropError("The memory does not suffice", kind="memory") for _ in range(2)]
    items = [bench.prompt("a.txt", "a"), bench.prompt("b.txt", "b")]

    bench.run(*items, errors=tuple(errors))

    assert [["a", "b"], ["a"], ["b"]] == bench.runs
    assert (["b.txt"], [("a.txt", "generate", "memory")]) == (bench.pictured, bench.ends.reasons)
    assert [(1, 1)] * 2 == bench.attempts(*items)


@pytest.mark.parametrize(
    ("deaths", "pictured", "attempts"), [(1, ["a.txt"], 2), (2, ["a.txt"], 3), (3, [], 3)]
)
def test_generator_that_dies(bench: Bench, deaths: int, pictured: list[str], attempts: int) -> None:
    """Each generator that dies over a prompt costs it an attempt, and the third ends it."""
    item = bench.prompt("a.txt")

    bench.run(item, errors=tuple(ChildDied("it was ended by SIGKILL") for _ in range(deaths)))

    assert ([["a circle"]] * attempts, pictured) == (bench.runs, bench.pictured)
    assert [(attempts, attempts)] == bench.attempts(item)
    assert ([] if pictured else [("a.txt", "generate", "worker")]) == bench.ends.reasons


@pytest.mark.parametrize("room", range(4))
def test_full_disk_for_the_picture(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Pictures that the disk does not take are kept and written when there is room, wherever it ran out: each was made
    once, handed on once, and was one attempt; the prompts were read once."""
    reads: list[str] = []

    def read(path: Path, most: int, name: str) -> str:
        reads.append(name)
        return read_prompt(path, most, name)

    monkeypatch.setattr(prompt_reader, "read_prompt", read)
    failing(monkeypatch, durable, "write", range(room, room + 3), full())
    items = [bench.prompt("a.txt"), bench.prompt("b.txt")]

    bench.run(*items)

    assert ([["a circle"] * 2], ["a.txt", "b.txt"]) == (bench.runs, bench.pictured)
    assert [(1, 1)] * 2 == bench.attempts(*items)
    assert ([0.5, 1, 2], ["a.txt", "b.txt"]) == (bench.clock.waits, reads)


def test_full_disk_for_the_index(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that could not be counted is counted once when there is room."""
    failing(monkeypatch, bench.store, "begin_attempt", range(2), full())
    item = bench.prompt("a.txt")

    bench.run(item)

    assert (["a.txt"], [(1, 1)]) == (bench.pictured, bench.attempts(item))


PARTS = "one\n---\ntwo\n---\nthree"


@pytest.mark.parametrize("name", ["announce", "sync_folder", "remove_tree", "rename"])
def test_full_disk_for_the_parts(bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Wherever a disk is full or away while a file of several pictures is divided, each of its new jobs is announced
    once when there is room, and the file's own job has had one attempt."""
    item = bench.prompt("a.txt", PARTS)
    owners = {"announce": bench, "rename": Path}
    calls = range(2) if name == "announce" else range(1, 2)
    failing(monkeypatch, owners.get(name, durable), name, calls, full())

    bench.run(item)

    told = sorted(part.folder.name for parts in bench.announced for part in parts)
    assert [f"{item.job.id}-2", f"{item.job.id}-3"] == told
    assert ([["one"]], ["a.txt"]) == (bench.runs, bench.pictured)
    assert [(1, 1)] == bench.attempts(item)


def test_parts_of_a_job_that_fails(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new jobs of a file are announced also where the file's own job fails just then."""
    item = bench.prompt("a.txt", PARTS)
    failing(monkeypatch, bench, "announce", range(1), MemoryError())

    bench.run(item)

    assert [("a.txt", "generate", "internal")] == bench.ends.reasons
    (told,) = bench.announced
    assert [f"{item.job.id}-2", f"{item.job.id}-3"] == [part.folder.name for part in told]


def test_picture_that_is_there(bench: Bench) -> None:
    """A picture that an earlier daemon made is handed on as it is, without a run."""
    item = bench.prompt("a.txt")
    bench.run(item)
    again = bench.prompt("b.txt")
    again.job.image.write_bytes(bench.png)
    again.job.generation.write_bytes(item.job.generation.read_bytes())
    second = Bench(bench.root, bench.store, bench.png)
    second.waiting.add(again.job)

    second.run(again)

    assert ([], ["b.txt"]) == (second.runs, second.pictured)


def test_cancelled_while_it_waits(bench: Bench) -> None:
    """A prompt that was cancelled while it waited is passed over: whoever cancelled it has ended it."""
    items = [bench.prompt("a.txt"), bench.prompt("b.txt")]
    bench.waiting.cancel(items[0].job.id)

    bench.run(*items)

    assert (["b.txt"], [(0, 0), (1, 1)]) == (bench.pictured, bench.attempts(*items))
    assert [] == bench.ends.failed


@pytest.mark.parametrize("while_made", [False, True])
def test_cancelled_later(bench: Bench, monkeypatch: pytest.MonkeyPatch, while_made: bool) -> None:
    """A prompt that was cancelled after it was begun fails as cancelled, made or not; the others are done."""
    items = [bench.prompt("a.txt"), bench.prompt("b.txt")]
    generator = bench.made[0]
    generate = generator.generate

    def cancel() -> None:
        items[0].job.cancelled.touch()

    def read(path: Path, most: int, name: str) -> str:
        cancel()
        return read_prompt(path, most, name)

    def generate_and_cancel(*arguments: Any) -> object:
        made = generate(*arguments)
        cancel()
        return made

    if while_made:
        monkeypatch.setattr(generator, "generate", generate_and_cancel)
    else:
        monkeypatch.setattr(prompt_reader, "read_prompt", read)
    bench.run(*items)

    assert [["a circle"] * (2 if while_made else 1)] == bench.runs
    assert (["b.txt"], [("a.txt", "generate", "cancelled")]) == (
        bench.pictured,
        bench.ends.reasons,
    )


def test_progress(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a run goes on it is told which job it is of and how far it is; before and after there is none."""
    seen: list[object] = []
    generator = bench.made[0]
    generate = generator.generate

    def looking(orders: Any, on_progress: Callable[[int, int], None]) -> object:
        made = generate(orders, on_progress)
        (current,) = bench.handler.currents
        seen.append((current.file, current.pictures, current.step, current.steps))
        return made

    monkeypatch.setattr(generator, "generate", looking)
    before = bench.handler.currents
    bench.run(bench.prompt("a.txt"), bench.prompt("b.txt"))

    assert ([], [("a.txt", 2, 1, 2)], []) == (before, seen, bench.handler.currents)


def test_stopping(bench: Bench) -> None:
    """When the daemon is to end while a picture is made, its prompt is given back: neither done nor failed."""
    bench.run(bench.prompt("a.txt"), bench.prompt("b.txt"), errors=(Stopping(),))

    assert ([], []) == (bench.pictured, bench.ends.failed)
    assert 1 == bench.made[0].closes


@pytest.mark.parametrize(
    ("change", "generators"),
    [
        ({"model": "another", "log_level": "debug", "settle_seconds": 9.0}, 1),
        ({"pipeline": "another"}, 2),
        ({"loras": "folder"}, 2),
        ({"generator_step_seconds": 9.0}, 2),
    ],
)
def test_settings(bench: Bench, change: dict[str, Any], generators: int) -> None:
    """A change of what a generator is made with ends it, and the next picture has another; no other change does."""
    bench.handler.apply(Settings(generator_batch_size=8, **change))
    bench.run(bench.prompt("a.txt"))

    assert generators == len(bench.made)
    assert [1] * generators == [one.closes for one in bench.made]
    assert [["a circle"]] == bench.made[-1].runs
    assert (["a.txt"], GENERATED.generator) == (
        bench.pictured,
        cast(PictureItem, bench.ends.handed[0][0]).generated.generator,  # type: ignore[union-attr]
    )
