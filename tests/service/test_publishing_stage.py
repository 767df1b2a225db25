"""The stage that gives results their names, with a real publisher, index and root."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.files.regular import chunks
from fluxdrop.jobs import rewritten
from fluxdrop.jobs.claim import NewJob
from fluxdrop.jobs.input_state import state_of
from fluxdrop.jobs.job import Job, JobOptions, Part, file_sha256
from fluxdrop.predict.answer import Answer
from fluxdrop.processes.child import ChildDied
from fluxdrop.publish import links, outcome
from fluxdrop.publish.outcome import Finished, Prediction
from fluxdrop.publish.publisher import Publisher
from fluxdrop.records.result import Result
from fluxdrop.service.mailbox import Abandoned, Claimed, Ended, Mailbox, Message, Rewritten
from fluxdrop.service.stages.publishing import Publishing
from fluxdrop.service.stages.stage import Stage
from support.fakes import full
from support.published import contents, done, failed, files_of, publishing, records
from support.stages import Clock, Once, context_of

REFUSED = OSError(errno.EINVAL, os.strerror(errno.EINVAL))


class Bench:
    """A stage with what it needs, and what came of it."""

    def __init__(self, root: Root, publisher: Publisher) -> None:
        self.root = root
        self.publisher = publisher
        self.mailbox = Mailbox()
        self.clock = Clock()
        self.context = context_of(root.work, self.clock)
        self.came_back: list[tuple[str, str]] = []
        """The files of the jobs that came back to be failures, with the kinds of the errors."""
        handler = Publishing(
            publisher,
            self.mailbox,
            self.context.deaths,
            fail=self._again,
            worker_pid=lambda _digest: None,
        )
        self._stage = Stage(handler, self.context)

    def _again(self, job: Job, error: FluxdropError) -> None:
        self.came_back.append((job.name, error.kind))
        self._stage.put_now(outcome.failed(job, "publish", error))

    def run(self, *items: Finished) -> list[Message]:
        """What the main loop is told of *items*, which are handled as one batch, and then of what comes back."""
        self._stage.put_now(*items)
        self._stage.start()
        assert self._stage.finish(60)
        assert self._stage.failure is None
        return list(self.mailbox.receive())


@pytest.fixture
def bench(root: Root) -> Iterator[Bench]:
    """A bench with a publisher of its own."""
    with publishing(root) as publisher:
        yield Bench(root, publisher)


def paths(messages: list[Message]) -> list[list[str]]:
    """The paths of the records in each message of ends."""
    return [[path for _, path in one.records] for one in messages if isinstance(one, Ended)]


def refusing(
    monkeypatch: pytest.MonkeyPatch, is_meant: Callable[[str, str], bool], error: Exception
) -> None:
    """Have the giving of the names that are *meant* raise *error*."""
    real = links.link_or_copy

    def give(source: str, name: str, folder: int, *rest: Any) -> None:
        if is_meant(source, name):
            raise error
        real(source, name, folder, *rest)

    monkeypatch.setattr(links, "link_or_copy", give)


def whole(root: Root) -> dict[str, str]:
    """What has to lie in *root* for the records that are there."""
    found = records(root)
    texts = {path: (root.path / path).read_text() for path in found}
    return texts | {
        name: text
        for path, record in found.items()
        for name, text in files_of(path, record).items()
    }


def test_batch(bench: Bench) -> None:
    """A batch is published together; the main loop is told of all ends in one message, and nothing is left."""
    items = [done(bench.root, "a.png"), done(bench.root, "b.txt"), failed(bench.root, "c.png")]
    expected = ["outputs/a.json", "outputs/b.json", "outputs/failed/c.png.error.json"]

    messages = bench.run(*items)

    assert ([expected], 1) == (paths(messages), len(messages))
    assert whole(bench.root) == contents(bench.root)
    assert [] == list(bench.root.work.iterdir())


def test_deaths_are_forgotten(bench: Bench) -> None:
    """What a job has cost is forgotten with its end, so that the counts do not grow for ever."""
    item = done(bench.root, "a.png")
    deaths = bench.context.deaths
    found = [deaths.record_death(item.job, ChildDied("dead")) for _ in range(2)]

    bench.run(item)

    found += [deaths.record_death(item.job, ChildDied("dead")) for _ in range(3)]
    assert [False, False, False, False, True] == found


@pytest.mark.parametrize("calls", [range(3), range(1, 4), range(7, 9)])
def test_full_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch, calls: range) -> None:
    """A full disk in the midst of a batch is waited out; each job is published and told once."""
    number = iter(range(1000))
    refusing(monkeypatch, lambda _source, _target: next(number) in calls, full())

    messages = bench.run(done(bench.root, "a.png"), done(bench.root, "b.png"))

    assert [["outputs/a.json", "outputs/b.json"]] == paths(messages)
    assert [0.5, 1, 2][: len(calls)] == bench.clock.waits
    assert whole(bench.root) == contents(bench.root)


@pytest.mark.parametrize("name", ["sync_all", "put", "wait_for"])
@pytest.mark.parametrize("call", range(3))
def test_full_disk_elsewhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, call: int
) -> None:
    """Wherever else a disk is full or away, it is waited out, and each job is published and told once."""
    real = getattr(durable, name)
    number = iter(range(1000))

    def calling(*arguments: Any) -> object:
        if next(number) == call:
            raise full()
        return real(*arguments)

    monkeypatch.setattr(durable, name, calling)
    messages = bench.run(done(bench.root, "a.png"), done(bench.root, "b.png"))

    assert [["outputs/a.json", "outputs/b.json"]] == paths(messages)
    assert [] == bench.came_back
    assert whole(bench.root) == contents(bench.root)


def test_full_disk_for_the_plans(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not let the plans of what was published be forgotten costs none of it its end."""
    fail, real = Once(full()), os.truncate

    def truncate(path: Any, size: int) -> None:
        fail()
        real(path, size)

    monkeypatch.setattr(os, "truncate", truncate)
    messages = bench.run(done(bench.root, "a.png"), done(bench.root, "b.png"))

    assert [["outputs/a.json", "outputs/b.json"]] == paths(messages)
    assert ([], {}) == (bench.came_back, bench.context.defects.counts())
    assert whole(bench.root) == contents(bench.root)


def test_name_that_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose name the filesystem refuses is admitted again, to get a plain name; the others are done."""
    refusing(monkeypatch, lambda _source, target: "b" in target.rpartition("/")[2], REFUSED)
    items = [done(bench.root, "a.png"), done(bench.root, "b.png")]

    messages = bench.run(*items)

    assert [["outputs/a.json"]] == paths(messages)
    assert Claimed([NewJob(items[1].job.folder)]) in messages
    assert [items[1].job.folder] == list(bench.root.work.iterdir())
    assert whole(bench.root) == contents(bench.root)


def test_folder_that_takes_no_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job for which neither its results nor its failure gets any name is abandoned, with its input where it was;
    the others are done and the stage goes on."""
    item = done(bench.root, "b.png")
    refusing(
        monkeypatch,
        lambda source, target: item.job.id in source and target.endswith(".json"),
        REFUSED,
    )
    told = [bench.run(done(bench.root, "a.png"), item)]
    for name in ("c.png", "d.png"):
        bench = Bench(bench.root, bench.publisher)
        told.append(bench.run(item, done(bench.root, name)))

    assert [Claimed([NewJob(item.job.folder)])] * 2 == [
        one for messages in told for one in messages if isinstance(one, Claimed)
    ]
    assert [("b.png", "internal")] == bench.came_back
    assert Abandoned(item.job.id) in told[-1]
    expected = [["outputs/a.json"], ["outputs/c.json"], ["outputs/d.json"]]
    assert expected == [path for messages in told for path in paths(messages)]
    assert f"input of {item.job.id}" == item.job.input.read_text()
    assert whole(bench.root) == contents(bench.root)


def broken(item: Finished) -> Finished:
    """*item*, whose record cannot be encoded: UTF-8 has no lone surrogate."""
    assert isinstance(item.facts, Prediction)
    return item._replace(
        facts=replace(item.facts, answer=Answer("classification", {"\ud800": 1.0}))
    )


def test_result_that_cannot_be_written(bench: Bench) -> None:
    """A job whose result cannot be made fails as internal, with its untouched input; the others are done."""
    items = [
        done(bench.root, "a.png"),
        broken(done(bench.root, "b.png")),
        done(bench.root, "c.png"),
    ]

    messages = bench.run(*items)

    expected = ["outputs/a.json", "outputs/c.json", "outputs/failed/b.png.error.json"]
    assert expected == sorted(path for call in paths(messages) for path in call)
    assert [("b.png", "internal")] == bench.came_back
    assert [1] == list(bench.context.defects.counts().values())
    assert whole(bench.root) == contents(bench.root)


def test_job_whose_folder_is_gone(bench: Bench) -> None:
    """A job whose folder somebody removed is abandoned; the others are done."""
    item = done(bench.root, "b.png")
    shutil.rmtree(item.job.folder)

    messages = bench.run(done(bench.root, "a.png"), item)

    assert [["outputs/a.json"]] == paths(messages)
    assert Abandoned(item.job.id) in messages
    assert whole(bench.root) == contents(bench.root)


def test_file_in_the_way(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job in the way of whose names a file came after they were decided is admitted again; that file stays."""
    real = links.link_or_copy
    in_the_way = bench.root.outputs / "b.json"

    def give(source: str, name: str, folder: int, *rest: Any) -> None:
        if name == "b.png":
            in_the_way.write_text("mine")
        real(source, name, folder, *rest)

    monkeypatch.setattr(links, "link_or_copy", give)
    item = done(bench.root, "b.png")
    messages = bench.run(done(bench.root, "a.png"), item)

    assert [["outputs/a.json"]] == paths(messages)
    assert Claimed([NewJob(item.job.folder)]) in messages
    assert "mine" == in_the_way.read_text()


def write_on(item: Finished) -> None:
    """Let whoever dropped the input of *item* write to it."""
    item.job.input_state = state_of(item.job.input)
    with item.job.input.open("ab") as file:
        file.write(b" more")


@pytest.mark.parametrize("end", [done, failed])
def test_rewritten(bench: Bench, end: Callable[..., Finished]) -> None:
    """A job whose input was written to meanwhile is not published, and nothing is left of what it made; the others
    are published.
    """
    written, other = end(bench.root, "a.txt"), done(bench.root, "b.txt")
    write_on(written)

    messages = bench.run(written, other)

    assert Rewritten(written.job.folder) in messages
    assert [["outputs/b.json"]] == paths(messages)
    assert [written.job.input] == list(written.job.folder.iterdir())


def test_rewritten_again_and_again(bench: Bench) -> None:
    """A job whose input is written to each time fails at last, as what it is, and its input is published."""
    item = done(bench.root, "a.png")
    write_on(item)
    handler = bench._stage._handler
    assert isinstance(handler, Publishing)
    handler._rewrites[item.job.id] = 3

    messages = bench.run(item)

    assert [("a.png", "incomplete")] == bench.came_back
    assert [["outputs/failed/a.png.error.json"]] == paths(messages)
    assert (bench.root.failed / "a.png").read_bytes().endswith(b" more")


def test_rewritten_after_it_was_divided(bench: Bench) -> None:
    """The first of several parts cannot be done again for all, so its result says what happened."""
    item = done(bench.root, "a.txt")
    item.job.options = JobOptions(part=Part(number=1, of=2, first=item.job.id))
    write_on(item)

    ((record, _),) = [
        ended for one in bench.run(item) if isinstance(one, Ended) for ended in one.records
    ]

    assert isinstance(record, Result)
    assert "was written to after it was read" in record.warnings[-1]


@pytest.mark.parametrize("make", [done, failed])
@pytest.mark.parametrize("name", ["a.png", "a.txt"])
def test_still_open(bench: Bench, make: Callable[[Root, str], Finished], name: str) -> None:
    """What a program writes to an input that it still has open lands in no file that is published."""
    item = make(bench.root, name)
    item.job.sha256 = file_sha256(item.job.input)
    item.job.input_state = state_of(item.job.input)

    with item.job.input.open("ab", buffering=0) as writer:
        messages = bench.run(item)
        published = contents(bench.root)
        writer.write(b" and the rest")

    assert 1 == len(paths(messages))
    assert published == contents(bench.root) == whole(bench.root)


def test_written_to_while_it_is_copied(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that is written to while it is copied stays in its place, for the job to be done again."""
    job = done(root, "a.txt").job
    before = job.input.stat().st_ino

    def writing(*arguments: Any) -> Iterator[bytes]:
        yield from chunks(*arguments)
        with job.input.open("ab") as file:
            file.write(b" more")

    monkeypatch.setattr(rewritten, "chunks", writing)

    assert not rewritten.detach_input(job, 1000)
    assert before == job.input.stat().st_ino
    assert job.input.read_bytes().endswith(b" more")
