"""What a kill, a failing disk or somebody else's file does to publishing.

Forked processes count their changing calls and end, or fail, at one.
"""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fluxdrop.files.layout import Root
from fluxdrop.jobs.store import Store
from fluxdrop.records.result import Failure, decode
from support import jobs
from support.published import contents, done, files_of, in_child, publish, publishing, records

pytestmark = pytest.mark.slow

CHANGING = {"link", "rename", "replace", "unlink", "remove", "rmdir", "mkdir"}
CHANGING |= {"open", "write", "truncate", "fsync", "fdatasync", "execute", "executemany"}
SOURCES = ("cat.png", "cat.txt", "sub/cat.pdf")


class Trap:
    """Does *what* before the *call*-th call from `set` on that changes something; counts them."""

    def __init__(self, what: Callable[[], None], call: int) -> None:
        self._what = what
        self._call = call
        self.calls = 0

    def set(self) -> None:
        sys.setprofile(self._note)

    def _note(self, _frame: Any, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ in CHANGING:
            self.calls += 1
            if self.calls == self._call:
                self._what()


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise OSError(errno.EIO, "Input/output error")


def forbid_links() -> None:
    """Let os.link fail for the rest of this process as it does on exFAT."""

    def hook(event: str, _arguments: object) -> None:
        if event == "os.link":
            raise PermissionError(errno.EPERM, "Operation not permitted")

    sys.addaudithook(hook)


@contextmanager
def root_with_jobs() -> Iterator[Root]:
    """A root on the fastest disk there is, with a claimed job for each of SOURCES."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        root = Root(Path(folder))
        root.create()
        rows = [jobs.claimed_row(jobs.job_in(jobs.claimed(root, name))) for name in SOURCES]
        with closing(Store(root.database)) as store:
            store.claimed(rows)
        yield root


def publish_all(root: Root, trap: Trap) -> int:
    """Publish as the stage does, which tries the same batch again; how many calls that took."""
    batch = [jobs.ended(jobs.job_in(folder)) for folder in root.work.iterdir()]
    with publishing(root) as publisher:
        trap.set()
        try:
            publisher.publish(batch)
        except OSError:
            publisher.publish(batch)
        sys.setprofile(None)
    return trap.calls


def start_again(root: Root, trap: Trap | None = None) -> int:
    """What the daemon does at its start: end what was decided, and do the rest from its input."""
    if trap is not None:
        trap.set()
    with publishing(root) as publisher:
        folders = [path for path in root.work.iterdir() if not publisher.remove_if_ended(path)]
        planned = [(folder, publisher.planned(folder)) for folder in folders]
        publisher.perform([(folder, plan) for folder, plan in planned if plan is not None])
        for folder in root.work.iterdir():
            publisher.publish([jobs.ended(jobs.job_in(folder))])
    return 0


def assert_nothing_torn(root: Root, has_links: bool) -> None:
    """Every visible file is whole, and a record is there only with all of its files; but where there are no links a
    failed input is moved, after all else."""
    seen = contents(root)
    for path, record in records(root).items():
        if not has_links and isinstance(record, Failure):
            continue
        assert files_of(path, record).items() <= seen.items()
    texts = [text for path, text in seen.items() if not path.endswith((".json", ".tmp"))]
    assert [] == [text for text in texts if not re.fullmatch(r"\w+ of \w{15}-\w{8}", text)]


def assert_all_published(root: Root) -> None:
    """Each job has exactly one result with its files, and nothing else is anywhere."""
    found = records(root)
    expected: dict[str, str] = {}
    for path, record in found.items():
        expected |= files_of(path, record)
    with closing(Store(root.database)) as store:
        counts = store.counts()
        rows = [store.get(record.job_id) for record in found.values()]
    assert sorted(SOURCES) == sorted(record.source.file for record in found.values())
    assert {"claimed": 0, "done": 2, "failed": 1} == counts
    assert list(found) == [row and row.record for row in rows]
    assert expected == {path: text for path, text in contents(root).items() if path not in found}
    assert [] == [*root.work.iterdir()]


@pytest.mark.parametrize("has_links", [True, False])
def test_kill_at_every_call(has_links: bool) -> None:
    """Killed before any call that changes something, and again in the next start, no job is lost,
    torn or there twice; with hard links, and with copies where there are none.
    """
    chance = random.Random(2026)

    def on_its_filesystem(act: Callable[..., int], *arguments: object) -> int:
        def acting() -> int:
            if not has_links:
                forbid_links()
            return act(*arguments)

        return in_child(acting)

    with root_with_jobs() as root:
        calls = on_its_filesystem(publish_all, root, Trap(fail, 0))
    for call in range(1, calls + 1):
        with root_with_jobs() as root:
            ended = on_its_filesystem(publish_all, root, Trap(kill_oneself, call))
            assert -signal.SIGKILL == ended
            assert_nothing_torn(root, has_links)
            on_its_filesystem(start_again, root, Trap(kill_oneself, chance.randint(1, 60)))
            assert_nothing_torn(root, has_links)
            assert 0 == on_its_filesystem(start_again, root)
            assert_all_published(root)


def test_failure_at_every_call() -> None:
    """A transient error of the disk at any call: the same batch again ends as the first would."""
    with root_with_jobs() as root:
        calls = in_child(partial(publish_all, root, Trap(fail, 0)))
    for call in range(1, calls + 1):
        with root_with_jobs() as root:
            assert call <= in_child(partial(publish_all, root, Trap(fail, call)))
            in_child(partial(start_again, root))
            assert_all_published(root)


@pytest.mark.parametrize("in_the_way", ["generated_images/cat.png", "outputs/cat.json"])
def test_file_in_the_way_of_a_plan(root: Root, in_the_way: str) -> None:
    """A file that took a name after it was decided stays; the plan is void, the names given by it
    are taken back, and the job gets another NAME."""
    finished = done(root, "cat.txt")

    def die_when_decided() -> int:
        sys.addaudithook(lambda event, _: kill_oneself() if event == "os.link" else None)
        return len(publish(root, [finished]))

    assert -signal.SIGKILL == in_child(die_when_decided)
    (root.path / in_the_way).write_text("somebody else's")

    with publishing(root) as publisher:
        folder = finished.job.folder
        plan = publisher.planned(folder)
        assert plan is not None
        published = publisher.perform([(folder, plan)])
        between = contents(root)
        publisher.publish([jobs.done(jobs.job_in(folder))])

    assert ([], [folder]) == (published.records, published.void)
    assert {in_the_way: "somebody else's"} == between
    seen = contents(root)
    record = decode(seen.pop("outputs/cat-2.json").encode())
    assert {**files_of("outputs/cat-2.json", record), in_the_way: "somebody else's"} == seen


@pytest.mark.parametrize("kept", [[], ["record.json"], ["input=cat.png"]])
def test_emptied_by_a_power_cut(root: Root, kept: list[str]) -> None:
    """Whatever a power cut left of an ended job's folder, with its plan still there, the result stays and
    the rest goes."""
    finished = done(root, "cat.png")
    folder = finished.job.folder

    def die_when_the_index_is_told() -> int:
        sys.addaudithook(lambda event, _: kill_oneself() if event == "os.remove" else None)
        return len(publish(root, [finished]))

    assert -signal.SIGKILL == in_child(die_when_the_index_is_told)
    seen = contents(root)
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()

    start_again(root)

    assert seen == contents(root)
    assert [] == list(root.work.iterdir())


def test_torn_plan(root: Root) -> None:
    """A plan that a power cut tore is none: no name was given by it."""
    whole, torn = done(root, "cat.png"), done(root, "dog.png")

    def die_when_decided() -> int:
        sys.addaudithook(lambda event, _: kill_oneself() if event == "os.link" else None)
        return len(publish(root, [whole, torn]))

    assert -signal.SIGKILL == in_child(die_when_decided)
    os.truncate(root.plans, root.plans.stat().st_size - 1)

    with publishing(root) as publisher:
        plans = [publisher.planned(finished.job.folder) for finished in (whole, torn)]
        published = publisher.publish([whole, torn])

    assert [True, False] == [plan is not None for plan in plans]
    assert ["outputs/cat.json", "outputs/dog.json"] == [path for _, path in published.records]
    assert b"" == root.plans.read_bytes()
