"""The main loop with parts of the tests' own: none keeps another from its turn."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, cast

import msgspec
import pytest

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import REQUEST_SUFFIX, Root
from fluxdrop.jobs.claim import NewJob
from fluxdrop.jobs.store import Store
from fluxdrop.publish.outcome import build_record
from fluxdrop.records.result import Record
from fluxdrop.requests.messages import Answer, CancelRequest, ModelRequest
from fluxdrop.service import main_loop
from fluxdrop.service.mailbox import Abandoned, Claimed, Ended, Mailbox, ModelChanged
from fluxdrop.service.main_loop import MainLoop
from fluxdrop.service.reporting.notify import Notifier
from fluxdrop.service.shutdown import Shutdown
from support.fakes import full, model
from support.jobs import claimed, done, failed, job_in
from support.stages import Once, context_of

REFUSED = OSError(errno.EACCES, os.strerror(errno.EACCES))


class RecordingStages:
    """Records the models that the stages are to open, and opens none."""

    model = None
    currents = ()
    hosts = ()
    reply_wait_seconds = 0.0
    max_reply_seconds = 1.0
    generator_pid = None
    all = ()
    warm = ()

    def __init__(self, root: Root) -> None:
        self.settings = Settings()
        self.waiting: dict[str, int] = {}
        self.context = context_of(root.work)
        self.outages: list[str] = []
        self.wanted: list[str] = []
        self.check: Callable[[], None] = lambda: None

    def stuck(self, _seconds: float) -> list[str]:
        """See `Stages.stuck`."""
        return []

    def open_model(self, settings: Settings) -> None:
        """See `Stages.open_model`."""
        self.wanted.append(settings.model)

    def apply(self, settings: Settings) -> None:
        """See `Stages.apply`."""
        self.settings = settings

    def warm_up(self, *, reopen_all: bool) -> None:
        """See `Stages.warm_up`."""


class FakeIntake:
    """An intake with nothing in the inbox."""

    polling = False
    watching = True
    filesystem = "ext4"

    def __init__(self) -> None:
        self.waiting = 0
        self.degraded: list[str] = []
        self.irregular: list[str] = []
        self.step: Callable[[float], None] = lambda _longest: None


class RecordingAdmission:
    """Records what an admission is asked for."""

    def __init__(self) -> None:
        self.busy = False
        self.added: list[NewJob] = []
        self.ends: list[str] = []
        self.cancelled: list[str] = []
        self.add = self.added.append
        self.remove = self.ends.append
        self.cancel = self.cancelled.extend
        self.has_room: Callable[[bool], bool] = lambda _is_prompt: True
        self.recover: Callable[[], None] = lambda: None
        self.admit: Callable[[], None] = lambda: None


class RecordingObservers:
    """Records the paths of the ended jobs."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.paths: list[str] = []
        self.update: Callable[[Any], None] = lambda _beat: None

    def job_ended(self, _record: Record, path: str) -> None:
        """See `Observers.job_ended`."""
        self.paths.append(path)


class Bench:
    """A main loop with its parts, which ends when nothing is left to do."""

    def __init__(self, root: Root, store: Store) -> None:
        self.root = root
        self.store = store
        self.stages = RecordingStages(root)
        self.intake = FakeIntake()
        self.admission = RecordingAdmission()
        self.observers = RecordingObservers()
        self.mailbox = Mailbox()
        self.shutdown = Shutdown()
        self.loop = MainLoop(
            root,
            store,
            cast(Any, self.stages),
            cast(Any, self.intake),
            cast(Any, self.admission),
            self.mailbox,
            cast(Any, self.observers),
            Notifier(),
            self.shutdown,
            load=Settings,
            is_root_available=lambda: True,
            once=True,
        )

    def ask(self, number: int, wanted: ModelRequest | CancelRequest) -> None:
        """Leave a request."""
        path = self.root.requests / f"{_request_id(number)}{REQUEST_SUFFIX}"
        path.write_bytes(msgspec.json.encode(wanted))

    @property
    def answers(self) -> dict[int, str]:
        """The kinds of the answers to requests, empty for those that were done."""
        return {
            int(path.stem[-1]): msgspec.json.decode(path.read_bytes(), type=Answer).kind
            for path in self.root.answers.iterdir()
        }


def _request_id(number: int) -> str:
    return f"20261126T120000-0000000{number}"


@pytest.fixture
def bench(root: Root, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench whose main loop does not pause after a defect."""
    monkeypatch.setattr(main_loop, "_PAUSE_SECONDS", 0.0)
    with closing(Store(root.database)) as store:
        yield Bench(root, store)


def test_messages(bench: Bench) -> None:
    """Each message has its effect: ends are reported and counted and make room, claims are admitted, what is abandoned
    makes room and counts as failed."""
    one, other = (job_in(claimed(bench.root, name)) for name in ("a.png", "b.png"))
    records = [(build_record(end, "x"), end.job.id) for end in (done(one), failed(other))]
    bench.mailbox.post(Ended(records))
    bench.mailbox.post(Claimed([NewJob(one.folder), NewJob(other.folder)]))
    bench.mailbox.post(Abandoned("gone"))
    bench.loop.run()

    assert ([one.id, other.id, "gone"], [one.id, other.id]) == (
        bench.admission.ends,
        bench.observers.paths,
    )
    assert [NewJob(one.folder), NewJob(other.folder)] == bench.admission.added
    assert (1, 2) == (bench.loop.done, bench.loop.failed)


def test_requests(bench: Bench) -> None:
    """Requests are taken and answered: what is to be cancelled at once, and models one after the other, each when it is
    in use or refused."""
    for name in ("one", "two"):
        (bench.root.models / name).mkdir()
        (bench.root.models / name / "model.toml").touch()
    bench.ask(1, CancelRequest(["a", "b"]))
    bench.ask(2, ModelRequest("one"))
    seen: list[dict[int, str]] = []

    def step(_longest: float) -> None:
        # The models are opened between two turns.
        if len(bench.stages.wanted) > len(seen):
            seen.append(bench.answers)
            if len(seen) == 1:
                bench.ask(3, ModelRequest("two"))
            bench.mailbox.post(ModelChanged(model()))

    bench.intake.step = step
    bench.loop.run()

    assert (["a", "b"], ["one", "two"]) == (bench.admission.cancelled, bench.stages.wanted)
    assert [{1: ""}, {1: "", 2: ""}] == seen
    assert {1: "", 2: "", 3: ""} == bench.answers
    assert "two\n" == bench.root.model_in_use.read_text()


@pytest.mark.parametrize("error", [REFUSED, full(), ValueError("rubbish"), FluxdropError("no")])
@pytest.mark.parametrize("part", ["intake.step", "admission.admit", "observers.update"])
def test_one_part_that_fails(bench: Bench, part: str, error: Exception) -> None:
    """Whatever one part of the main loop meets, the others have their turns meanwhile: messages are received, requests
    taken, and the heartbeat is written."""
    owner, _, name = part.partition(".")
    turns: list[bool] = []

    def fail(*_arguments: object) -> None:
        turns.append(bool(bench.admission.ends and bench.admission.cancelled))
        bench.admission.busy = len(turns) < 3
        raise error

    setattr(getattr(bench, owner), name, fail)
    bench.admission.busy = True
    bench.mailbox.post(Abandoned("gone"))
    bench.ask(1, CancelRequest(["a"]))
    bench.loop.run()

    assert [True, True] == turns[1:]
    assert (["gone"], ["a"]) == (bench.admission.ends, bench.admission.cancelled)
    defects = sum(bench.stages.context.defects.counts().values())
    assert (0 if isinstance(error, OSError) else 3) == defects
    assert bench.root.heartbeat.exists() == (part != "observers.update")


def test_recovery_that_has_to_wait(bench: Bench) -> None:
    """Recovery is made again until it is done, before anything else."""
    fail = Once(full(), REFUSED, ValueError("rubbish"))
    calls: list[str] = []

    def recover() -> None:
        calls.append("recover")
        fail()

    bench.admission.recover = recover
    bench.intake.step = lambda _longest: calls.append("step")
    bench.loop.run()

    assert [*["recover"] * 4, "step"] == calls


def test_stage_that_ended(bench: Bench) -> None:
    """What ended a stage before its time ends the main loop."""
    bench.stages.check = Once(FluxdropError("There is no Julia on this machine"))

    with pytest.raises(FluxdropError, match="no Julia"):
        bench.loop.run()


def test_end(bench: Bench) -> None:
    """A main loop that is to end does, whatever is left to do, also while it recovers."""
    bench.admission.busy = True
    bench.intake.step = lambda _longest: bench.shutdown.begin()
    bench.loop.run()
    again = Bench(bench.root, bench.store)
    again.shutdown.begin()

    def recover() -> None:
        raise full()

    again.admission.recover = recover
    again.loop.run()

    assert (True, 0) == (bench.shutdown.begun, again.loop.done)
