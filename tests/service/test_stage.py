"""The policy of `fluxdrop.service.stages.stage` for what goes wrong over an item, row by row."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError, Outage, internal
from fluxdrop.files.layout import Root
from fluxdrop.processes.child import ChildDied
from fluxdrop.service.shutdown import Stopping
from fluxdrop.service.stages.handler import Batch
from fluxdrop.service.stages.stage import Stage
from support import jobs
from support.daemons import PATIENCE
from support.stages import Clock, Number, Numbers, Once, Together, context_of, run_stage
from support.station import events

TRANSIENT = {
    "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "share away": OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN)),
    "outage": Outage("The engine does not start", kind="worker"),
}
DEFECTS = {
    "memory": MemoryError(),
    "value": ValueError("it\nis\nso"),
    "recursion": RecursionError("maximum recursion depth exceeded"),
    "refused name": OSError(errno.EINVAL, os.strerror(errno.EINVAL)),
    "missing file": FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)),
}


def numbers(*wanted: int) -> list[Number]:
    """Items without jobs."""
    return [Number(number) for number in wanted]


def with_job(root: Root, number: int, source: str = "cat.png") -> Number:
    """An item about a claimed job."""
    return Number(number, jobs.job_in(jobs.claimed(root, source)))


def only(number: int, fail: Callable[[], None]) -> Callable[[Number], None]:
    """What calls *fail* over the item *number*."""

    def work(item: Number) -> None:
        if item.number == number:
            fail()

    return work


@pytest.mark.parametrize("error", TRANSIENT.values(), ids=TRANSIENT)
def test_what_passes_is_waited_out(tmp_path: Path, error: Exception) -> None:
    """What passes costs no item: the pauses grow to ten seconds, and only what is still open comes again."""
    clock = Clock()
    handler = Numbers(only(2, Once(*[error] * 7)), batch_size=3)

    stage = run_stage(handler, tmp_path, *numbers(1, 2, 3), clock=clock)

    assert [0.5, 1, 2, 4, 8, 10, 10] == clock.waits
    assert [[1, 2, 3], *[[2, 3]] * 7] == handler.batches
    assert [] == handler.failed
    assert ("", None) == (str(stage.outage), stage.failure)


def test_outage_is_told_while_it_lasts(tmp_path: Path) -> None:
    """While a stage waits it says why and where, and the next outage's pauses are short again."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "outputs/a.json")
    seen: list[str] = []
    clock = Clock(then=lambda _waits: seen.append(str(stage.outage)))
    first, second = only(1, Once(full, full)), only(2, Once(full))

    def work(item: Number) -> None:
        first(item)
        second(item)

    stage = Stage(Numbers(work), context_of(tmp_path, clock))
    stage.put_now(*numbers(1, 2))
    stage.start()
    ended = stage.finish(60)

    assert ended
    assert ["numbers: No space left on device (outputs/a.json)"] * 3 == seen
    assert [0.5, 1, 0.5] == clock.waits


def test_one_of_several(tmp_path: Path) -> None:
    """Items that fail together are handled again alone: the one that cannot be fails, the others are
    unharmed and keep their order."""
    error = FluxdropError("It is damaged", kind="picture")
    failing = only(2, Once(*[error] * 9))
    done: list[int] = []

    def work(item: Number) -> None:
        failing(item)
        if len(handler.batches[-1]) == 1:
            done.append(item.number)

    handler = Together(work, batch_size=4)
    run_stage(handler, tmp_path, *numbers(1, 2, 3, 4))

    assert [[1, 2, 3, 4], [1], [2], [3], [4]] == handler.batches
    assert [1, 3, 4] == done
    assert [(2, error)] == handler.failed


@pytest.mark.parametrize(("deaths", "calls", "lost"), [(1, 2, 0), (2, 3, 0), (3, 3, 1), (9, 3, 1)])
def test_child_died(root: Root, deaths: int, calls: int, lost: int) -> None:
    """An item over which a process died is handled again, until its job has cost three processes."""
    errors = [ChildDied("the worker was ended by SIGKILL") for _ in range(deaths)]
    handler = Numbers(Once(*errors))

    run_stage(handler, root.work, with_job(root, 1))

    assert [[1]] * calls == handler.batches
    assert lost == len(handler.failed)
    assert ["worker"] * lost == [error.kind for _, error in handler.failed]
    assert all("tried 3 times" in error.hint for _, error in handler.failed)


def test_child_died_over_several(root: Root) -> None:
    """A death over several items counts against none of them; alone, it counts against its own only."""
    deaths = [ChildDied("the worker exited with code 5") for _ in range(9)]
    handler = Together(only(1, Once(*deaths)), batch_size=2)

    run_stage(handler, root.work, with_job(root, 1), with_job(root, 2))

    assert [[1, 2], [1], [1], [1], [2]] == handler.batches
    assert [1] == [number for number, _ in handler.failed]


def test_child_died_over_no_job(tmp_path: Path) -> None:
    """A death over an item without a job, of which no three can be counted, ends that item."""
    handler = Numbers(Once(ChildDied("the worker exited with code 5")))

    run_stage(handler, tmp_path, *numbers(1, 2))

    assert [[1], [2]] == handler.batches
    assert [1] == [number for number, _ in handler.failed]


def test_reason_for_a_user(root: Root) -> None:
    """A FluxdropError is the reason for which the item fails, and no defect."""
    error = FluxdropError("cat.png is no picture", hint="Save it again.", kind="picture")
    context = context_of(root.work)
    handler = Numbers(Once(error))

    run_stage(handler, root.work, with_job(root, 1), context=context)

    assert [(1, error)] == handler.failed
    assert {} == context.defects.counts()


@pytest.mark.parametrize("error", DEFECTS.values(), ids=DEFECTS)
def test_defect(root: Root, caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    """Anything else fails the job as `internal`, with one sentence that names the file and no traceback;
    the log has the traceback once, and counts after that."""
    context = context_of(root.work)
    handler = Numbers(Once(error, error))

    stage = run_stage(
        handler, root.work, *[with_job(root, number) for number in (1, 2, 3)], context=context
    )

    expected = internal(error, "cat.png").message
    told = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    tracebacks = [line["exc_info"] for line in told if line.get("exc_info")]
    assert [(1, expected), (2, expected)] == [(one, why.message) for one, why in handler.failed]
    assert ["internal"] * 2 == [why.kind for _, why in handler.failed]
    assert "cat.png" in expected
    assert not any("Traceback" in str(why) or "\n" in str(why) for _, why in handler.failed)
    assert [2] == list(context.defects.counts().values())
    assert (["defect", "defect again"], [error]) == (events(caplog), tracebacks)
    assert [[1], [2], [3]] == handler.batches
    assert stage.failure is None


def test_defect_after_all_is_settled(tmp_path: Path) -> None:
    """What is raised when no item is open any more ends nothing, and counts as a defect all the same."""

    class Late(Numbers):
        def handle(self, batch: Batch[Number]) -> None:
            super().handle(batch)
            raise ValueError

    context = context_of(tmp_path)
    handler = Late(lambda _item: None)
    run_stage(handler, tmp_path, *numbers(1, 2), context=context)

    assert ([[1], [2]], []) == (handler.batches, handler.failed)
    assert [2] == list(context.defects.counts().values())


def test_fail_that_raises(root: Root) -> None:
    """What goes wrong while an item fails ends neither the stage nor the items behind it; both
    errors count."""

    class Hopeless(Numbers):
        def fail(self, item: Number, error: FluxdropError) -> None:
            raise KeyError(item.number) from error

    context = context_of(root.work)
    handler = Hopeless(Once(ValueError()))
    stage = run_stage(handler, root.work, *numbers(1, 2), context=context)

    assert [[1], [2]] == handler.batches
    assert stage.failure is None
    assert {"ValueError", "KeyError"} == {where.split()[1] for where in context.defects.counts()}


def test_fail_that_has_to_wait(tmp_path: Path) -> None:
    """An outage while an item fails is waited out, without handling the item again."""
    clock = Clock()
    full = Once(*[TRANSIENT["full"]] * 2)

    class Waiting(Numbers):
        def fail(self, item: Number, error: FluxdropError) -> None:
            full()
            super().fail(item, error)

    error = FluxdropError("It is damaged")
    handler = Waiting(Once(error))
    run_stage(handler, tmp_path, *numbers(1), clock=clock)

    assert ([[1]], [(1, error)]) == (handler.batches, handler.failed)
    assert [0.5, 1] == clock.waits


def test_stopping_gives_back(tmp_path: Path) -> None:
    """When the daemon is to end, items are neither done nor failed, nor are those behind them begun."""
    handler = Together(Once(Stopping()), batch_size=2)

    stage = run_stage(handler, tmp_path, *numbers(1, 2, 3))

    assert ([[1, 2]], [], None) == (handler.batches, handler.failed, stage.failure)


def test_stopping_ends_a_wait(tmp_path: Path) -> None:
    """A daemon that is to end does not wait for what passes: the item is given back."""
    context = context_of(tmp_path, Clock(then=lambda _waits: context.shutdown.begin()))
    handler = Numbers(Once(*[TRANSIENT["full"]] * 9))

    stage = run_stage(handler, tmp_path, *numbers(1, 2), context=context)

    assert ([[1]], [], None) == (handler.batches, handler.failed, stage.failure)


AWAY = {
    **DEFECTS,
    "reason": FluxdropError("cat.png cannot be read", kind="picture"),
    "death": ChildDied("the worker exited with code 5"),
}


@pytest.mark.parametrize("error", AWAY.values(), ids=AWAY)
@pytest.mark.parametrize("guarded", [False, True])
def test_folder_of_the_jobs_is_away(tmp_path: Path, error: Exception, guarded: bool) -> None:
    """While the folder of the jobs is away, whatever goes wrong is no job's fault: it is waited for."""
    work = tmp_path / "work"
    clock = Clock(then=lambda waits: work.mkdir() if len(waits) == 2 else None)
    fail = Once(*[error] * 3)

    class Guarded(Numbers):
        def handle(self, batch: Batch[Number]) -> None:
            self.batches.append([item.number for item in batch.unsettled])
            for item in batch.unsettled:
                with batch.guard(item):
                    self._work(item)

    kind = Guarded if guarded else Together
    handler = kind(lambda _item: None if work.is_dir() else fail(), batch_size=2)
    context = context_of(work, clock)
    run_stage(handler, work, *numbers(1, 2), context=context)

    assert ([[1, 2]] * 3, []) == (handler.batches, handler.failed)
    assert ([0.5, 1], {}) == (clock.waits, context.defects.counts())


def test_guard(root: Root) -> None:
    """What goes wrong over one item of a batch under guard ends that one alone and once, by the same policy."""
    context = context_of(root.work)
    errors = {2: FluxdropError("It is damaged"), 3: MemoryError()}
    done: list[int] = []

    class Guarding(Numbers):
        def handle(self, batch: Batch[Number]) -> None:
            self.batches.append([item.number for item in batch.unsettled])
            for item in batch.unsettled:
                with batch.guard(item):
                    if item.number in errors:
                        raise errors[item.number]
                    done.append(item.number)
            has_to_wait()

    has_to_wait = Once(TRANSIENT["full"])
    handler = Guarding(lambda _item: None, batch_size=4)
    items = [with_job(root, number) for number in (1, 2, 3, 4)]
    run_stage(handler, root.work, *items, context=context)

    assert ([[1, 2, 3, 4], [1, 4]], [1, 4] * 2) == (handler.batches, done)
    assert [(2, "error"), (3, "internal")] == [(one, why.kind) for one, why in handler.failed]
    assert [1] == list(context.defects.counts().values())


@pytest.mark.parametrize(
    "error",
    [ChildDied("dead"), TRANSIENT["full"], TRANSIENT["outage"]],
    ids=["death", "full", "outage"],
)
def test_guard_lets_through(root: Root, error: Exception) -> None:
    """Guarded or not, deaths and what passes are the stage's affair: the item comes again and is done."""
    fail = Once(error)

    class Guarding(Numbers):
        def handle(self, batch: Batch[Number]) -> None:
            self.batches.append([item.number for item in batch.unsettled])
            for item in batch.unsettled:
                with batch.guard(item):
                    fail()

    handler = Guarding(lambda _item: None)
    run_stage(handler, root.work, with_job(root, 1))

    assert ([[1], [1]], []) == (handler.batches, handler.failed)


class Grouped(Together):
    """Has the odd and the even numbers in batches of their own, and takes none of *held*."""

    held: frozenset[int] = frozenset()

    def can_take(self, item: Number) -> bool:
        """See `Handler.can_take`."""
        return item.number not in self.held

    def group(self, item: Number) -> bool:
        """See `Handler.group`."""
        return item.number % 2 == 1


def _wait_for(stage: Stage[Number], waiting: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while stage.waiting != waiting:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_groups(tmp_path: Path) -> None:
    """A batch has items of one group, that of the one that has waited longest; the others keep their order."""
    handler = Grouped(lambda _item: None, batch_size=3)

    run_stage(handler, tmp_path, *map(Number, (1, 2, 3, 4, 5, 6, 7, 8, 10)))

    assert [[1, 3, 5], [2, 4, 6], [7], [8, 10]] == handler.batches


def test_items_that_cannot_be_taken(tmp_path: Path) -> None:
    """An item that cannot be taken waits, and those behind it are handled; when it can be, it has its turn. What still
    waits at the end is left."""
    handler = Grouped(lambda _item: None, batch_size=3)
    handler.held = frozenset((1, 4))
    stage = Stage(handler, context_of(tmp_path))
    stage.put_now(*map(Number, (1, 2, 3, 4)))
    stage.start()
    _wait_for(stage, 2)
    handler.held = frozenset((4,))
    stage.recheck()
    _wait_for(stage, 1)

    assert stage.finish(60)
    assert ([[2], [3], [1]], 1) == (handler.batches, stage.waiting)
