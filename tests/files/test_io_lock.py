"""Turns of threads: one at a time, unless it takes too long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fluxdrop.files import io_lock
from fluxdrop.files.io_lock import hold_io_lock, release_io_lock
from fluxdrop.service.stages.stage import Context, Stage
from support.stages import Number, Numbers


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, nobody goes on without a turn."""
    monkeypatch.setattr(io_lock, "_ACQUIRE_TIMEOUT_SECONDS", 60.0)


@contextmanager
def in_a_thread(work: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


@pytest.mark.usefixtures("patience")
def test_one_has_the_turn_at_a_time() -> None:
    """Ten threads that take turns a hundred times each are never two in a turn."""
    inside: list[int] = []
    found: list[int] = []

    def work() -> None:
        for number in range(100):
            with hold_io_lock():
                inside.append(number)
                found.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 1000


def test_a_long_turn_holds_up_nobody() -> None:
    """A thread whose turn does not come goes on without it, and does not end the other's."""
    order: list[str] = []

    def other() -> None:
        with hold_io_lock(), release_io_lock():
            order.append("other")

    with hold_io_lock():
        for _ in range(2):
            with in_a_thread(other):
                pass
        order.append("first")
    assert order == ["other", "other", "first"]


@pytest.mark.usefixtures("patience")
def test_who_waits_lets_others_have_the_turn() -> None:
    """Within `release_io_lock` another thread gets the turn, and keeps it until it is done."""
    begun, end = threading.Event(), threading.Event()
    order: list[str] = []

    def other() -> None:
        with hold_io_lock():
            begun.set()
            end.wait()
            order.append("other")

    with hold_io_lock(), in_a_thread(other):
        with release_io_lock():
            begun.wait()
            end.set()
        order.append("first")
    assert order == ["other", "first"]


@pytest.mark.usefixtures("patience")
def test_a_full_stage_lets_others_have_the_turn(tmp_path: Path) -> None:
    """A thread that waits for room in a stage gives its turn up to the stage that makes it."""
    done: list[Number] = []
    numbers = [Number(number) for number in range(20)]
    handler = Numbers(done.append)
    stage = Stage(handler, Context(tmp_path), limit=1, uses_io_lock=True)
    stage.start()
    with hold_io_lock():
        for number in numbers:
            stage.put(number)
    assert stage.finish(timeout=60)
    assert done == numbers
