"""Workers and generators that die, hang, lie, flood and grow under a real daemon."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from fluxdrop.files.layout import Root
from support.daemons import Daemon, failures, results, serving, started
from support.misbehaving import julia_that, julia_that_once
from support.needs import needs_generation, needs_julia

PICTURES = 6


def lines(daemon: Daemon, event: str) -> list[dict[str, object]]:
    """The lines of *daemon*'s log that tell *event*."""
    return [line for line in daemon.log() if line["event"] == event]


def drop_all(root: Root, samples: Path) -> None:
    """Drop as many pictures as a test counts on, half of them round."""
    originals = [*sorted(samples.glob("angular*.png"))[:3], *sorted(samples.glob("round*.png"))[:3]]
    for original in originals:
        shutil.copyfile(original, root.inbox / original.name)


def assert_all_right(root: Root) -> None:
    """Every picture has one result, and it is the right one."""
    assert not failures(root)
    assert PICTURES == len(results(root))
    for name, record in results(root).items():
        assert name.split("_")[0] == record["top"][0]["label"]
    assert not list(root.work.iterdir())


FLOOD = 'for io in (stdout, stderr), _ in 1:100_000; println(io, "x"^100); end'
FAULTS = {
    "rubbish": (
        "write(pipe.output, rand(UInt8, 4096)); flush(pipe.output); sleep(99)",
        "broke the protocol",
    ),
    "another shape": (
        "FluxdropWorker.send_tensor(pipe, PREDICTION, id, zeros(Float32, 2, 77)); sleep(99)",
        "broke the protocol",
    ),
    "exit": ('println("out of luck"); exit(7)', "exited with code 7"),
}


@needs_julia
@pytest.mark.parametrize("fault", FAULTS)
def test_worker_that_fails(root: Root, samples: Path, tmp_path: Path, fault: str) -> None:
    """A worker that fails over its pictures is told of in one line and replaced; all come right."""
    does, reason = FAULTS[fault]
    drop_all(root, samples)
    julia = julia_that_once(tmp_path, does)
    with serving(root, engine="julia", julia=julia) as daemon:
        daemon.wait_for_ends(PICTURES)
        assert 0 == daemon.stop()
        died, starts = lines(daemon, "worker died"), lines(daemon, "worker started")

    assert_all_right(root)
    assert [True] == [reason in str(line["reason"]) for line in died]
    assert 2 == len(starts)
    if fault == "exit":
        assert "out of luck" == died[0]["tail"]


@needs_julia
def test_worker_that_floods_and_grows(root: Root, samples: Path, tmp_path: Path) -> None:
    """10 MB on each of stdout and stderr, and 1 GB of memory that is not given back, cost no job a
    try: the worker is replaced between two batches, and a line tells each."""
    hoard = "push!(HOARD, fill(0x01, 10^9))"
    drop_all(root, samples)
    julia = julia_that_once(tmp_path, f"{FLOOD}; {hoard}")
    settings = {"batch_size": 2, "worker_max_bytes": 600 * 1024**2}
    with serving(root, engine="julia", julia=julia, **settings) as daemon:
        daemon.wait_for_ends(PICTURES)
        daemon.stop()
        told = [lines(daemon, event) for event in ("worker died", "worker over its memory limit")]
        left_out = sum(
            int(str(line["left_out"]))
            for line in lines(daemon, "worker prints more than is logged")
        )
        logged = len(lines(daemon, "worker output"))

    assert_all_right(root)
    assert [0, 1] == [len(line) for line in told]
    assert 200_000 == logged + left_out
    assert logged < 100_000


@needs_julia
def test_worker_that_does_not_start_at_once(root: Root, samples: Path, tmp_path: Path) -> None:
    """A worker that is stopped while nobody needs it is found and replaced all the same, over two
    that do not start; the next pictures meet none of it."""
    counter = tmp_path / "starts"
    fails = (
        f'echo >> {counter}; case $(wc -l < {counter}) in 2|3) echo "no luck" >&2; exit 5;; esac'
    )
    julia = julia_that(tmp_path, fails)
    with serving(root, engine="julia", julia=julia, worker_call_seconds=2) as daemon:
        (start,) = lines(daemon, "worker started")
        os.kill(int(str(start["pid"])), signal.SIGSTOP)
        daemon.wait_until(lambda: len(lines(daemon, "worker started")) == 2, "another worker")
        drop_all(root, samples)
        daemon.wait_for_ends(PICTURES)
        daemon.stop()
        reasons = [str(line["reason"]) for line in lines(daemon, "worker died")]
        outages = [line for line in daemon.log() if "outage" in line["event"]]

    assert_all_right(root)
    assert [
        "the worker did not answer within 2 s and was killed",
        "the worker exited with code 5",
        "the worker exited with code 5",
    ] == reasons
    assert ["outage begins", "outage ended"] == [line["event"] for line in outages]
    assert all(record["attempts"] == 1 for record in results(root).values())


@needs_generation
def test_generator_stopped_and_killed(root: Root) -> None:
    """A generator that hangs in mid-picture is killed at the step's deadline, one that is killed
    between two pictures is replaced: every prompt has its picture."""
    with serving(root, engine="onnxruntime", generator_step_seconds=8, max_steps=1000) as daemon:
        (root.inbox / "one.txt").write_text("a circle\nSteps: 200, Seed: 1, Size: 64x64\n")
        daemon.wait_for_steps()
        (start,) = lines(daemon, "generator started")
        os.kill(int(str(start["pid"])), signal.SIGSTOP)
        daemon.wait_for_ends(1)
        os.kill(int(str(lines(daemon, "generator started")[1]["pid"])), signal.SIGKILL)
        (root.inbox / "two.txt").write_text("a square\nSteps: 1, Seed: 1, Size: 64x64\n")
        daemon.wait_for_ends(2)
        children = psutil.Process(daemon.process.pid).children()
        daemon.stop()
        reasons = [str(line["reason"]) for line in lines(daemon, "generator died")]
    psutil.wait_procs(children)

    assert not failures(root)
    assert {"one.json", "two.json"} == set(results(root))
    assert [
        "the generator did not answer within 8 s and was killed",
        "the generator was ended by SIGKILL",
    ] == reasons


@needs_julia
def test_stop_while_starting(root: Root) -> None:
    """SIGTERM while the worker still starts ends the daemon with code 0, and the worker with it."""
    with started(root, engine="julia") as daemon:
        process = psutil.Process(daemon.process.pid)
        daemon.wait_until(process.children, "a worker")
        children = process.children()
        code = daemon.stop()
    _gone, alive = psutil.wait_procs(children, timeout=30)

    assert (0, []) == (code, alive)
