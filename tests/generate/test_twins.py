"""Several pictures at a time: in processes that share the loaded pipeline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.generator import GenerationOrder, Generator
from fluxdrop.generate.messages import GeneratedImage
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.generate.pipeline_process import Result
from fluxdrop.processes.child import ChildDied
from fluxdrop.processes.procfs import children
from support.daemons import wait_for_end
from support.generators import ONE_STEP
from support.needs import needs_generation

pytestmark = [
    pytest.mark.slow,
    needs_generation,
    pytest.mark.skipif(
        sys.platform != "linux" or len(os.sched_getaffinity(0)) == 1,
        reason="several pictures at a time take several processors of Linux",
    ),
]

TWO_STEPS = msgspec.structs.replace(ONE_STEP, steps=2)
LONG = msgspec.structs.replace(ONE_STEP, steps=1000)


@pytest.fixture(scope="module")
def alone(generator: Generator) -> list[bytes]:
    """The pictures of four seeds, made one after another."""
    return [generator.generate([order_of(seed)])[0].png for seed in range(4)]


def order_of(seed: int, parameters: PromptParameters = TWO_STEPS) -> GenerationOrder:
    """An order with the seed *seed*."""
    return GenerationOrder(msgspec.structs.replace(parameters, seed=seed))


def all_ended(generator: Generator, count: int) -> dict[int, Result]:
    """What becomes of *count* runs, by their numbers."""
    ended: dict[int, Result] = {}
    while len(ended) < count:
        ended |= generator.finished(60, lambda *_step: None)
    return ended


def begun(generator: Generator, order: GenerationOrder) -> int:
    """The number of a new run for *order* of which a step is done."""
    number, steps = generator.begin([order]), list[int]()
    while not steps:
        generator.finished(0.1, lambda _number, step, _steps: steps.append(step))
    return number


def png_of(result: Result) -> bytes:
    """The only picture of a run."""
    assert isinstance(result, list)
    (image,) = result
    assert isinstance(image, GeneratedImage)
    return image.png


def test_same_bytes(generator: Generator, alone: list[bytes]) -> None:
    """A picture that is made beside another one, and after one that took all processors, has the bytes that it has when
    it is made alone."""
    large = msgspec.structs.replace(ONE_STEP, width=384, height=384)
    beside = []
    for first in (0, 2):
        numbers = [generator.begin([order_of(seed)]) for seed in (first, first + 1)]
        assert generator.slots - 2 == generator.room
        ended = all_ended(generator, 2)
        beside += [png_of(ended[number]) for number in numbers]
        numbers = [generator.begin([order_of(0, parameters)]) for parameters in (large, TWO_STEPS)]
        ended = all_ended(generator, 2)
        beside.append(png_of(ended[numbers[1]]))

    assert [alone[0], alone[1], alone[0], alone[2], alone[3], alone[0]] == beside


def test_one_dies(alone: list[bytes]) -> None:
    """If one of the processes is killed, its run alone is ChildDied; the other one's picture and the next are made."""
    with closing(Generator(Settings())) as generator:
        generator.generate([order_of(0)])
        pid = generator.pid
        assert pid is not None
        killed = begun(generator, order_of(0, LONG))
        (victim,) = children(pid)
        other = generator.begin([order_of(1)])
        os.kill(victim, signal.SIGKILL)

        ended = all_ended(generator, 2)
        after = generator.generate([order_of(2)])

        death = ended[killed]
        assert isinstance(death, ChildDied)
        assert "a process of the generator was ended by SIGKILL" in death.message
        assert (alone[1], alone[2], pid) == (png_of(ended[other]), after[0].png, generator.pid)


def test_generator_dies() -> None:
    """If the generator is killed, its processes end with it, also one that was stopped, and whoever begins another run
    is told of the death at once."""
    with closing(Generator(Settings())) as generator:
        generator.generate([order_of(0)])
        begun(generator, order_of(0, LONG))
        assert generator.pid is not None
        (twin,) = children(generator.pid)
        os.kill(twin, signal.SIGSTOP)
        os.kill(generator.pid, signal.SIGKILL)
        wait_for_end(twin)

        with pytest.raises(ChildDied, match="the generator was ended by SIGKILL"):
            generator.begin([order_of(1)])


def test_one_cancelled(generator: Generator, alone: list[bytes], tmp_path: Path) -> None:
    """Of two pictures that are made at a time one can be cancelled; the other is made."""
    mark = tmp_path / "cancelled"
    cancelled = begun(generator, order_of(0, LONG)._replace(cancelled=mark))
    other = generator.begin([order_of(1)])
    mark.touch()

    ended = all_ended(generator, 2)

    refusal = ended[cancelled]
    assert isinstance(refusal, FluxdropError)
    assert ("cancelled", alone[1]) == (refusal.kind, png_of(ended[other]))


def test_large_pictures_wait_at_the_daemon(generator: Generator, tmp_path: Path) -> None:
    """While a picture that takes all processors is made, no other is begun that would have to wait for it."""
    large = msgspec.structs.replace(LONG, width=384, height=384)
    mark = tmp_path / "cancelled"
    begun(generator, order_of(0, large)._replace(cancelled=mark))
    found = generator.slots, generator.room
    mark.touch()
    all_ended(generator, 1)

    assert (1, 0) == found


def test_one_thread_before_a_fork(generator: Generator) -> None:
    """A process is forked from one with a single thread: what is forked beside others may wait for them forever."""
    generator.generate([order_of(0)])

    tasks = Path(f"/proc/{generator.pid}/task")
    assert [str(generator.pid)] == [task.name for task in tasks.iterdir()]


def test_none_after_threads() -> None:
    """A generator that has loaded a pipeline for a GPU, and so may have used threads, forks none."""
    code = """
from fluxdrop.generate import threads
for device in ("cuda", "cpu"):
    print(threads.twins("cpu") > 0)
    threads.prepare(device)
print(threads.twins("cpu"))
"""
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert ["True", "False", "0"] == printed.stdout.split()


def test_memory_is_shared(generator: Generator) -> None:
    """Two processes that make pictures have less than a third as much memory of their own as they share."""
    for seed in (0, 1):
        generator.begin([order_of(seed)])
    all_ended(generator, 2)
    assert generator.pid is not None
    pids = children(generator.pid)

    own = [rollup(pid, "Private_Dirty:") for pid in pids]
    shared = [rollup(pid, "Anonymous:") for pid in pids]

    assert len(pids) >= 2
    assert sum(own) < sum(shared) / 3


def rollup(pid: int, key: str) -> int:
    """Kilobytes of the process *pid*; see proc_pid_smaps(5)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))
