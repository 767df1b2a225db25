"""Prompts through a real daemon: several pictures of a file, cancelling, progress, idleness."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from PIL import Image

from fluxdrop.files.layout import Root
from fluxdrop.generate.generator import Generator
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.jobs.store import Row, Store
from support.daemons import (
    PATIENCE,
    environment,
    failures,
    fluxdrop,
    results,
    serving,
    started,
)
from support.generators import generate
from support.needs import needs_generation

pytestmark = needs_generation

SHORT = "Steps: 1, CFG scale: 3, Size: 64x64"
THREE = f"a red circle\n{SHORT}, Seed: 5, Batch size: 2\n---\na blue star\n{SHORT}, Seed: 9\n"
LONG = f"a green ring\n{SHORT.replace('Steps: 1', 'Steps: 1000')}, Seed: 1\n"


def once(root: Root) -> subprocess.CompletedProcess[str]:
    """Work off the inbox."""
    return fluxdrop("run", "--root", root.path, "--once", engine="onnxruntime")


def made_with(root: Root) -> list[tuple[str, str, int]]:
    """The name, prompt and seed of each result."""
    return sorted(
        (name, record["generation"]["prompt"], record["generation"]["seed"])
        for name, record in results(root).items()
    )


def in_hand(root: Root) -> list[Row]:
    """The jobs that the daemon has claimed and not ended."""
    with closing(Store(root.database, read_only=True)) as store:
        return store.in_hand("2")


def test_several_pictures(root: Root) -> None:
    """A file with two prompts, one of them for two pictures, has three results, which submit --wait
    tells all; each has a seed that makes its picture again, alone, byte for byte, by --regenerate
    and by replay."""
    with serving(root, engine="onnxruntime") as daemon:
        (root.path / "cat.txt").write_text(THREE)
        submit = ["submit", "--root", root.path, "--wait", "--json"]
        waited = fluxdrop(*submit, root.path / "cat.txt")
        regenerated = fluxdrop(*submit, "--regenerate", root.outputs / "cat-2.png")
        replayed = fluxdrop("replay", "cat-2", "--root", root.path, "--wait")
        daemon.stop()

    found = results(root)
    expected = [
        ("cat-2-2.json", "a red circle", 6),
        ("cat-2.json", "a red circle", 6),
        ("cat-3.json", "a blue star", 9),
        ("cat-4.json", "a red circle", 6),
        ("cat.json", "a red circle", 5),
    ]
    assert (0, 0, 0) == (waited.returncode, regenerated.returncode, replayed.returncode)
    assert expected == made_with(root)
    names = ("cat", "cat-2", "cat-3")
    assert [f"outputs/{name}.json" for name in names] == [
        row["record"] for row in json.loads(waited.stdout)
    ]
    first = found["cat.json"]["job_id"]
    assert [{"number": n, "of": 3, "first": first} for n in (1, 2, 3)] == [
        found[f"{name}.json"]["part"] for name in names
    ]
    assert {THREE} == {(root.outputs / f"{name}.txt").read_text() for name in names}
    assert 1 == len(
        {(root.outputs / f"{n}.png").read_bytes() for n in ("cat-2", "cat-2-2", "cat-4")}
    )
    assert 3 == len({(root.outputs / f"{n}.png").read_bytes() for n in names})
    assert [] == list(root.work.iterdir())


def test_killed_between_the_pictures(root: Root) -> None:
    """A daemon that is killed again and again over a file of three pictures loses and doubles none."""
    (root.inbox / "cat.txt").write_text(THREE)
    with serving(root, engine="onnxruntime") as daemon:
        daemon.wait_until(lambda: len(in_hand(root)) + len(results(root)) >= 3, "the parts")
        daemon.process.kill()
    with serving(root, engine="onnxruntime") as daemon:
        daemon.wait_for_ends(1)
        daemon.process.kill()

    assert 0 == once(root).returncode

    seeds = [seed for _name, _prompt, seed in made_with(root)]
    assert [5, 6, 9] == sorted(seeds)
    assert {"cat.json", "cat-2.json", "cat-3.json"} == set(results(root))
    assert [] == list(root.work.iterdir())


@pytest.mark.parametrize("seed", ["", ", Seed: -1"])
def test_killed_before_the_picture(root: Root, seed: str) -> None:
    """A prompt without a seed of its own has the one that was drawn for it, also if the daemon is killed before its
    picture is made."""
    (root.inbox / "cat.txt").write_text(f"a red circle\n{SHORT}{seed}\n")
    with started(root, "--once", failpoint="generation-begun", engine="onnxruntime") as daemon:
        assert -signal.SIGKILL == daemon.process.wait(PATIENCE)
    (drawn,) = [int(path.name[5:]) for path in root.work.glob("*/seed=*")]

    assert 0 == once(root).returncode

    assert [("cat.json", "a red circle", drawn)] == made_with(root)
    assert [] == list(root.work.iterdir())


def test_one_wrong_prompt(root: Root) -> None:
    """A file with a prompt that cannot be is given back whole, with the number of that prompt."""
    text = f"a red circle\n{SHORT}\n---\na star\nSteps: 0\n"
    (root.inbox / "cat.txt").write_text(text)

    assert 1 == once(root).returncode

    (failure,) = failures(root).values()
    assert "Prompt 2 of 2: Steps is 0; must be 1 to 150." == failure["error"]["message"]
    assert "Correct the prompt file and drop it once more." == failure["error"]["hint"]
    assert text == (root.failed / "cat.txt").read_text()
    assert {} == results(root)


def test_batched_together(root: Root) -> None:
    """With generator_batch_size the prompts that wait are made in one run, where all but prompt and
    seed is the same; each result says how many were."""
    for number in range(3):
        (root.inbox / f"{number}.txt").write_text(f"a red circle\n{SHORT}, Seed: {number}")
    (root.inbox / "more.txt").write_text(f"a red circle\n{SHORT.replace('3', '4')}, Seed: 1")
    ended = fluxdrop(
        "run",
        "--root",
        root.path,
        "--once",
        engine="onnxruntime",
        generator_batch_size=8,
        settle_seconds=0.1,
    )

    sizes = {name: record["generator"]["batch"] for name, record in results(root).items()}
    assert 0 == ended.returncode
    assert {"0.json", "1.json", "2.json", "more.json"} == set(sizes)
    assert 1 == sizes["more.json"]
    assert max(sizes.values()) > 1


def test_cancel(root: Root, samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job is cancelled between two steps and others while they wait; each ends as failed with the
    kind cancelled, nothing of them is left, and the generator serves on."""
    # One picture at a time, so that the second one waits.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with serving(root, engine="onnxruntime", max_steps=1000) as daemon:
        (root.inbox / "long.txt").write_text(LONG)
        current = daemon.wait_for_steps()
        pid = json.loads(root.heartbeat.read_bytes())["generator_pid"]
        (root.inbox / "waits.txt").write_text(THREE)
        daemon.wait_until(lambda: len(in_hand(root)) == 2, "the second claim")
        waiting = fluxdrop("cancel", "waits.txt", "--root", root.path, "--json")
        status = fluxdrop("status", "--root", root.path)
        running = fluxdrop("cancel", current["job_id"], "--root", root.path)
        (root.inbox / "next.txt").write_text(f"a red circle\n{SHORT}")
        daemon.wait_until(lambda: "next.json" in results(root), "the next picture")
        same = pid == json.loads(root.heartbeat.read_bytes())["generator_pid"]
        ended = fluxdrop("cancel", "next", "--root", root.path)
        daemon.stop()

    found = failures(root)
    assert (0, 0) == (waiting.returncode, running.returncode)
    assert ["failed"] == [row["state"] for row in json.loads(waiting.stdout)]
    assert "long.txt" in status.stdout
    assert "it/s" in status.stdout
    assert {"long.txt.error.json", "waits.txt.error.json"} == set(found)
    assert {"cancelled"} == {record["error"]["kind"] for record in found.values()}
    assert LONG == (root.failed / "long.txt").read_text()
    assert same
    assert [] == list(root.work.iterdir())
    assert 2 == ended.returncode
    assert "next has already ended" in ended.stderr


def test_cancelled_before_a_kill(root: Root) -> None:
    """A cancelled job stays cancelled when the daemon is killed before it could say so."""
    with serving(root, engine="onnxruntime", max_steps=1000) as daemon:
        (root.inbox / "long.txt").write_text(LONG)
        current = daemon.wait_for_steps()
        pid = json.loads(root.heartbeat.read_bytes())["generator_pid"]
        psutil.Process(pid).suspend()
        cancelling = subprocess.Popen(
            [sys.executable, "-m", "fluxdrop", "cancel", "long.txt", "--root", str(root.path)],
            env=environment(),
            stderr=subprocess.DEVNULL,
        )
        mark = root.work / current["job_id"] / "cancelled"
        daemon.wait_until(mark.exists, "the mark")
        daemon.process.kill()
        assert 2 == cancelling.wait(60)

    assert 1 == once(root).returncode
    assert ["cancelled"] == [record["error"]["kind"] for record in failures(root).values()]


def test_idle_generator_gives_its_memory_back(root: Root) -> None:
    """The generator's process ends when there was no prompt for a while, and the daemon goes on."""
    with serving(root, engine="onnxruntime", generator_idle_seconds=0.5) as daemon:
        (root.inbox / "ring.txt").write_text(f"a red ring\n{SHORT}")
        daemon.wait_for_ends(1)
        (pid,) = [line["pid"] for line in daemon.log() if line["event"] == "generator started"]
        daemon.wait_until(lambda: not psutil.pid_exists(pid), "the generator's end")
        code = daemon.stop()

    assert 0 == code


def test_missing_pipeline_harms_no_picture(root: Root, samples: Path) -> None:
    """With a pipeline that is not there each prompt fails with one sentence, and pictures are served."""
    (root.inbox / "cat.txt").write_text("a cat")
    picture = (samples / "round_ring_01.png").read_bytes()
    (root.inbox / "ring.png").write_bytes(picture)
    ended = fluxdrop(
        "run", "--root", root.path, "--once", engine="onnxruntime", pipeline="/nowhere/at-all"
    )

    (failure,) = failures(root).values()
    assert 1 == ended.returncode
    assert {"ring.json"} == set(results(root))
    assert "pipeline" == failure["error"]["kind"]
    assert "There is no pipeline /nowhere/at-all: no such folder." == failure["error"]["message"]


def test_info(generator: Generator, tmp_path: Path) -> None:
    """info prints what a picture says of itself, and one sentence for a picture that says nothing."""
    out = tmp_path / "ring.png"
    parameters = PromptParameters(
        prompt="a ring", steps=1, guidance_scale=3, seed=4, width=64, height=64
    )
    generate(generator, parameters, out)
    told = fluxdrop("info", out)
    as_json = json.loads(fluxdrop("info", out, "--json").stdout)
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    plain = fluxdrop("info", tmp_path / "plain.png")

    assert told.stdout.startswith("a ring\nSteps: 1, Sampler: DDIM, CFG scale: 3, Seed: 4, ")
    assert ("a ring", 4) == (as_json["parameters"]["prompt"], as_json["parameters"]["seed"])
    assert 2 == plain.returncode
    assert f"{tmp_path}/plain.png does not say how it was generated" in plain.stderr
