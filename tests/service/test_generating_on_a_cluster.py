"""The stage that turns prompts into pictures, with several runs in hand, whose hosts may be lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import msgspec
import pytest

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.generate.hands import Died, Hands, HostLost, Outcome, Refused, Run, attempts_lost
from fluxdrop.generate.parameters import Generated
from fluxdrop.jobs.job import Job, claimed_row
from fluxdrop.jobs.store import Store
from fluxdrop.processes.child import ChildDied
from fluxdrop.service.items import PictureItem, PromptItem
from fluxdrop.service.shutdown import Stopping
from fluxdrop.service.stages.generating import Generating
from fluxdrop.service.stages.pending_jobs import PendingJobs
from support.fakes import Ends, full, job_of
from support.hands import Answer, TestHands
from support.stages import context_of, run_stage


def lost(run: Run, host: str = "first") -> list[Outcome]:
    """*host* was lost over *run*."""
    return [HostLost(run.id, host, "it does not answer")]


def died(run: Run) -> list[Outcome]:
    """The process that made *run* died on a host that lives."""
    return [Died(run.id, ChildDied("the generator was ended by SIGKILL"))]


def refused(run: Run) -> list[Outcome]:
    """*run* cannot be done."""
    return [Refused(run.id, FluxdropError("There is not enough memory", kind="memory"))]


class Bench:
    """A stage with hands of a test, and what came of its jobs."""

    def __init__(self, root: Root, store: Store, png: bytes) -> None:
        self.root = root
        self.store = store
        self.png = png
        self.ends = Ends()
        self.pending = PendingJobs()
        self.made: list[TestHands] = []
        """The hands that were made, one after the other."""

    def run(
        self, items: list[PromptItem], *answers: Answer, slots: int = 2, batch_size: int = 1
    ) -> TestHands:
        """Have *items* handled with hands of *slots* slots that give *answers*, and return these."""
        hands = TestHands(self.png, slots, *answers)
        self.handle(items, hands, batch_size)
        return hands

    def handle(self, items: list[PromptItem], hands: TestHands, batch_size: int = 1) -> None:
        """Have *items* handled by *hands*."""
        handler = self.handler_of(hands, batch_size)
        stage = run_stage(handler, self.root.work, *items, context=context_of(self.root.work))
        assert (None, 0) == (stage.failure, stage.waiting)

    def handler_of(self, hands: TestHands, batch_size: int = 1) -> Generating:
        """The stage's handler, which has *hands* and, when its settings change, others."""
        self.made = [hands, TestHands(self.png, 1)]
        makes = iter(self.made)
        self.handler = Generating(
            Settings(cluster="auto", generator_batch_size=batch_size),
            self.store,
            self.pending,
            make_hands=lambda _settings: cast(Hands, next(makes)),
            forward=self.ends.forward,
            fail=self.ends.fail,
            announce=lambda _job, _parts: None,
        )
        return self.handler

    def prompts(self, count: int) -> list[PromptItem]:
        """Prompts that wait for their pictures."""
        return [self.prompt(f"{number}.txt") for number in range(count)]

    def prompt(self, name: str, text: str = "a circle") -> PromptItem:
        """A prompt that waits for its picture."""
        job = job_of(self.root, name, text.encode())
        self.store.claimed([claimed_row(job)])
        self.pending.add(job)
        return PromptItem(job)

    @property
    def pictured(self) -> list[str]:
        """The files whose pictures were handed on."""
        return [item.job.name for call in self.ends.handed for item in call]  # type: ignore[attr-defined]

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """The files that failed, with the kinds of the errors."""
        return [(name, kind) for name, _stage, kind in self.ends.reasons]


@pytest.fixture
def bench(root: Root, png: bytes) -> Iterator[Bench]:
    """A bench with an index of its own."""
    with closing(Store(root.database)) as store:
        yield Bench(root, store, png)


def recorded(job: Job) -> Generated:
    """What the folder of *job* says of how its picture was made."""
    return msgspec.json.decode(job.generation.read_bytes(), type=Generated)


def test_several_in_hand(bench: Bench) -> None:
    """As many prompts are in hand as there are slots, more are taken as soon as one has ended, and each picture says
    which host made it."""
    items = bench.prompts(7)
    waiting: list[int] = []
    hands = TestHands(bench.png, 3)
    hands.on_wait = lambda: waiting.append(len(hands.in_hand))

    bench.handle(items, hands)

    assert [3, 3, 3, 3, 3, 2, 1] == waiting
    assert [item.job.name for item in items] == bench.pictured
    assert {("first", "cpu")} == {
        (recorded(item.job).generator.host, recorded(item.job).generator.host_class)
        for item in items
    }
    assert 7 == len({run.id for run in hands.begun})


def test_batches_are_shared_out(bench: Bench) -> None:
    """Prompts that could share a run are shared out among the hosts that would be idle."""
    hands = bench.run(bench.prompts(7), slots=3, batch_size=4)

    assert [2, 2, 3] == [len(run.orders) for run in hands.begun]


def test_classes_of_hosts(bench: Bench) -> None:
    """Replays of pictures that hosts of different classes made share no run, and each run says which it prefers."""
    items = bench.prompts(3)
    for item, host_class in zip(items, ("H100", "A100", "H100"), strict=True):
        item.job.options = msgspec.structs.replace(item.job.options, host_class=host_class)

    hands = bench.run(items, slots=2, batch_size=4)

    assert [("A100", 1), ("H100", 2)] == sorted(
        (run.host_class, len(run.orders)) for run in hands.begun
    )


@pytest.mark.parametrize("losses", [1, 2, 3, 4])
def test_lost_hosts(bench: Bench, losses: int) -> None:
    """A job whose host is lost is made on another one, from the fourth time on by itself; the fourth loss ends it. Each
    is another attempt, and none is a death."""
    (first,) = bench.prompts(1)
    hands = bench.run([first], *[lost] * losses, slots=1)

    alone = [run.alone for run in hands.begun]
    assert [False, False, False, True][: losses + 1] == alone
    assert [first.job.id] * len(alone) == [run.jobs[0] for run in hands.begun]
    assert len(alone) == len({run.id for run in hands.begun}) == first.job.attempts
    assert 1 == len({run.orders[0].parameters.seed for run in hands.begun})
    if losses < 4:
        assert (["0.txt"], []) == (bench.pictured, bench.reasons)
    else:
        assert ([], [("0.txt", "host")]) == (bench.pictured, bench.reasons)
        assert "alone on first: it does not answer" in bench.ends.failed[0][2].message


def test_lost_cluster(bench: Bench) -> None:
    """However often the whole cluster is lost over a job, that does not count against it."""
    hands = bench.run(bench.prompts(1), *[lambda run: lost(run, "")] * 9)

    assert (["0.txt"], [False] * 10) == (bench.pictured, [run.alone for run in hands.begun])


@pytest.mark.parametrize(("deaths", "pictured"), [(2, ["0.txt"]), (3, [])])
def test_deaths_beside_losses(bench: Bench, deaths: int, pictured: list[str]) -> None:
    """A death on a host that lives counts against the job, three at most, however many hosts were lost besides."""
    hands = bench.run(bench.prompts(1), lost, *[died] * deaths)

    assert (pictured, 4) == (bench.pictured, len(hands.begun))
    assert ([] if pictured else [("0.txt", "worker")]) == bench.reasons


@pytest.mark.parametrize("outcome", [died, refused, lost])
def test_run_of_several(bench: Bench, outcome: Answer) -> None:
    """What ends a run of several counts against none of its jobs, which are all done."""
    items = bench.prompts(3)

    hands = bench.run(items, outcome, slots=1, batch_size=3)

    sizes = [len(run.orders) for run in hands.begun]
    assert ([3, 3] if outcome is lost else [3, 1, 1, 1]) == sizes
    assert (3, []) == (len(bench.pictured), bench.reasons)


def test_refused(bench: Bench) -> None:
    """A prompt that a host refuses fails for that reason, while the others are made."""
    bench.run(bench.prompts(3), refused)

    assert (["1.txt", "2.txt"], [("0.txt", "memory")]) == (bench.pictured, bench.reasons)


def test_answer_of_an_attempt_that_was_given_up(bench: Bench) -> None:
    """What still comes of an attempt whose host counts as lost is dropped and counted: the picture is that of the
    current attempt."""
    item = bench.prompts(1)[0]
    before = attempts_lost["late", "superseded"]
    hands = TestHands(bench.png, 1, lost)

    def late(run: Run) -> list[Outcome]:
        return [hands.made(hands.begun[0], "late"), hands.made(run, "second")]

    hands._answers.append(late)
    bench.handle([item], hands)

    assert (["0.txt"], "second") == (bench.pictured, recorded(item.job).generator.host)
    assert before + 1 == attempts_lost["late", "superseded"]


def test_full_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk is full, pictures wait for room, and no more than twice as many as there are slots are begun; then
    all are done, each made once."""
    hands = TestHands(bench.png, 2)
    begun: list[int] = []
    write = durable.write

    def refuse(path: Path, data: bytes) -> None:
        if len(begun) < 9:
            begun.append(len(hands.begun))
            raise full()
        write(path, data)

    monkeypatch.setattr(durable, "write", refuse)
    bench.handle(bench.prompts(8), hands)

    assert max(begun) <= 4
    assert (8, 8) == (len(hands.begun), len(bench.pictured))


def test_outage(bench: Bench) -> None:
    """While the cluster cannot be reached the prompts wait, and the reason is told; then they are made."""
    hands = TestHands(bench.png, 2)
    hands.outage = "The head does not answer."
    told: list[str] = []

    def wait() -> None:
        told.append(str(bench.handler.outage))
        if len(told) == 3:
            hands.outage = None

    hands.on_wait = wait
    bench.handle(bench.prompts(2), hands)

    assert ["cluster: The head does not answer."] * 3 == told[:3]
    assert ("", ["0.txt", "1.txt"]) == (str(bench.handler.outage), bench.pictured)


def test_cancelled_in_hand(bench: Bench) -> None:
    """A job that is cancelled while a host makes its picture is cancelled there, and fails as cancelled."""
    items = bench.prompts(2)
    hands = TestHands(bench.png, 2)

    def cancel() -> None:
        items[0].job.cancelled.touch()
        bench.handler.cancel(items[0].job.id)
        hands.on_wait = lambda: None
        # So that nothing has ended when the hands are told.
        hands.in_hand.rotate()

    hands.on_wait = cancel
    bench.handle(items, hands)

    assert [hands.begun[0].id] == hands.cancelled
    assert (["1.txt"], [("0.txt", "cancelled")]) == (bench.pictured, bench.reasons)


def test_cancelled_while_the_cluster_is_away(bench: Bench) -> None:
    """A job that waits for another try ends as soon as it is cancelled, though nothing can be begun."""
    (item,) = bench.prompts(1)
    hands = TestHands(bench.png, 1, lost)

    def wait() -> None:
        if hands.begun:
            hands.outage = "The head does not answer."
            item.job.cancelled.touch()
            bench.handler.cancel(item.job.id)

    hands.on_wait = wait
    bench.handle([item], hands)

    assert ([], [("0.txt", "cancelled")]) == (bench.pictured, bench.reasons)
    assert 1 == len(hands.begun)


def test_cancelled_before_the_host_is_lost(bench: Bench) -> None:
    """A job whose host is lost after it was cancelled ends, though nothing can be begun."""
    (item,) = bench.prompts(1)

    def nothing_yet(_run: Run) -> list[Outcome]:
        hands.in_hand.append(_run)
        item.job.cancelled.touch()
        bench.handler.cancel(item.job.id)
        return []

    def lose(run: Run) -> list[Outcome]:
        hands.outage = "No host is there."
        return lost(run)

    hands = TestHands(bench.png, 1, nothing_yet, lose)
    bench.handle([item], hands)

    assert [hands.begun[0].id] == hands.cancelled
    assert ([], [("0.txt", "cancelled")]) == (bench.pictured, bench.reasons)


def test_other_settings_in_an_outage(bench: Bench) -> None:
    """Other hands are used at once where what is in hand may wait for ever, as no host is there; it is another attempt
    of its job."""
    (item,) = bench.prompts(1)

    def nothing_yet(_run: Run) -> list[Outcome]:
        hands.in_hand.append(_run)
        hands.outage = "No host is there."
        bench.handler.apply(Settings())
        return []

    hands = TestHands(bench.png, 1, nothing_yet)
    bench.handle([item], hands)

    assert [1, 1] == [len(one.begun) for one in bench.made]
    assert (1, ["0.txt"], 2) == (hands.closes, bench.pictured, item.job.attempts)


def test_other_settings(bench: Bench) -> None:
    """Other hands are used when those in hand have ended, and meanwhile nothing is begun."""
    hands = TestHands(bench.png, 2)
    hands.on_wait = lambda: bench.handler.apply(Settings())

    bench.handle(bench.prompts(4), hands)

    assert [2, 2] == [len(one.begun) for one in bench.made]
    assert 1 == hands.closes
    assert 4 == len(bench.pictured)


def test_stopping(bench: Bench) -> None:
    """When the daemon is to end while hosts make pictures, their prompts are neither done nor failed."""
    hands = TestHands(bench.png, 2)

    def stop() -> None:
        raise Stopping

    hands.on_wait = stop
    run_stage(bench.handler_of(hands), bench.root.work, *bench.prompts(3))

    assert ([], [], 1) == (bench.pictured, bench.reasons, hands.closes)


def test_defect_of_the_hands(bench: Bench) -> None:
    """If what becomes of the runs is not known, the hands are closed, and each prompt is begun again, alone."""
    hands = TestHands(bench.png, 2)

    def fail() -> None:
        hands.on_wait = lambda: None
        hands.in_hand.clear()
        raise ValueError

    hands.on_wait = fail
    bench.handle(bench.prompts(2), hands)

    assert (["0.txt", "1.txt"], [], 4) == (bench.pictured, bench.reasons, len(hands.begun))


def test_progress(bench: Bench) -> None:
    """Every run in hand tells how far it is, and the hosts are told."""
    seen: list[list[tuple[str, int, int | None]]] = []
    hands = TestHands(bench.png, 2)
    hands.on_wait = lambda: seen.append(
        [(one.file, one.step, one.steps) for one in bench.handler.currents]
    )

    bench.handle(bench.prompts(3), hands)

    assert [("0.txt", 0, None), ("1.txt", 0, None)] == seen[0]
    assert [("1.txt", 1, 2), ("2.txt", 0, None)] == seen[1]
    assert ["first"] == [host.name for host in bench.handler.hosts]
    assert isinstance(bench.ends.handed[0][0], PictureItem)
