"""`fluxdrop replay --verify` over a mixed run: prompts, PNG, JPEG, failures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxdrop.files.layout import Root
from fluxdrop.resources import models_folder
from support.daemons import SAMPLES, Daemon, failures, files_below, fluxdrop, results, serving
from support.needs import needs_generation

pytestmark = [needs_generation, pytest.mark.slow]

PROMPT = "a large red circle\nSteps: 2, Seed: 7, Size: 64x64"
MIXED = 7
"""How many jobs `mixed` has."""


def add_paler(root: Root) -> None:
    """Add a model that sees pictures paler than round-or-angular does."""
    bundle = root.models / "paler"
    shutil.copytree(models_folder() / "round-or-angular", bundle)
    spec = (bundle / "model.toml").read_text()
    (bundle / "model.toml").write_text(spec.replace("scale = 255", "scale = 300"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that has done a mixed run, one picture of it with another model."""
    root = Root(tmp_path_factory.mktemp("mixed") / "root")
    root.create()
    add_paler(root)
    with Image.open(SAMPLES / "angular_star_01.png") as star:
        star.save(root.inbox / "star.jpg", quality=90)
    (root.inbox / "sub").mkdir()
    shutil.copyfile(SAMPLES / "round_ring_01.png", root.inbox / "sub/ring.png")
    (root.inbox / "circle.txt").write_text(PROMPT)
    (root.inbox / "bad.png").write_bytes(b"no picture")
    (root.inbox / "bad.txt").write_bytes(b"\xff\xfe")
    (root.inbox / "bad.pdf").write_bytes(b"%PDF")
    with serving(root, settle_seconds=0.1, incomplete_seconds=0.5) as daemon:
        daemon.wait_for_ends(MIXED - 1)
        assert 0 == fluxdrop("model", "use", "paler", "--root", root.path).returncode
        shutil.copyfile(SAMPLES / "angular_cross_01.png", root.inbox / "cross.png")
        daemon.wait_for_ends(MIXED)
        assert 0 == fluxdrop("model", "use", "round-or-angular", "--root", root.path).returncode
        yield daemon


def verify(root: Root, *arguments: object) -> tuple[int, dict[str, dict[str, Any]]]:
    """`fluxdrop replay --verify`: its exit code and what it compared, by the new job's source."""
    ended = fluxdrop("replay", *arguments, "--verify", "--json", "--root", root.path)
    return ended.returncode, {item["source"]: item for item in json.loads(ended.stdout)}


def verdicts(compared: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The verdict of each comparison."""
    return {source: item["verdict"] for source, item in compared.items()}


def test_all_of_a_mixed_run(mixed: Daemon) -> None:
    """All jobs of a mixed run come to the same again, but for the one that another model had judged; one that failed
    unread is left out; nothing that was there is changed."""
    # The gallery is of all jobs, so it changes with each.
    files = {path: path.read_bytes() for path in files_below(mixed.root.outputs)}

    code, compared = verify(mixed.root, "--all")

    assert {
        "star.jpg": "same",
        "sub/ring.png": "same",
        "circle.txt": "same",
        "bad.png": "same",
        "bad.txt": "same",
        "cross.png": "drifted",
    } == verdicts(compared)
    assert (1, "same", "by") == (
        code,
        compared["cross.png"]["image"],
        compared["cross.png"]["probabilities"][:2],
    )
    assert files == {path: path.read_bytes() for path in files}


def test_no_drift_and_no_replays_of_replays(mixed: Daemon) -> None:
    """What was judged by the model in use has no drift, with exit code 0; a glob means no replays."""
    ended = fluxdrop("replay", "*r*", "circle", "--verify", "--root", mixed.root.path)
    unread = fluxdrop("replay", "bad.pdf", "--verify", "--root", mixed.root.path)
    again = fluxdrop("replay", "sub/*", "--dry-run", "--json", "--root", mixed.root.path)

    assert (1, True) == (ended.returncode, "4 replayed: 3 the same, 1 drifted" in ended.stdout)
    assert ["cross.png"] == [word for word in ended.stdout.split() if word.endswith(".png")]
    assert 1 == len(json.loads(again.stdout))
    assert (0, "1 failed before being read: not verified\n") == (unread.returncode, unread.stderr)


@pytest.mark.parametrize("start", ["preprocess", "predict"])
def test_later_starts(mixed: Daemon, start: str) -> None:
    """From the recorded picture or tensor, everything comes to the same, and nothing is generated."""
    code, compared = verify(mixed.root, "circle", "star", "sub/ring", "--from", start)

    replays = [
        record
        for record in results(mixed.root).values()
        if record["source"]["file"] == "circle.png"
    ]

    assert (0, {"same"}) == (code, set(verdicts(compared).values()))
    assert {None} == {record["generation"] for record in replays}


def test_another_model(mixed: Daemon) -> None:
    """With --model a job is judged by that one, beside the one in use."""
    code, compared = verify(mixed.root, "cross", "sub/ring", "--model", "paler")
    unknown = fluxdrop("replay", "cross", "--model", "none", "--root", mixed.root.path)
    after = verify(mixed.root, "sub/ring")

    assert (1, {"cross.png": "same", "sub/ring.png": "drifted"}) == (code, verdicts(compared))
    assert (2, "There is no model bundle none" in unknown.stderr) == (unknown.returncode, True)
    assert (0, {"sub/ring.png": "same"}) == (after[0], verdicts(after[1]))


def test_tensor_of_another_model(mixed: Daemon, tmp_path: Path) -> None:
    """A recorded tensor that does not fit the model fails that job with what to do."""
    bundle = mixed.root.models / "larger"
    shutil.copytree(models_folder() / "round-or-angular", bundle)
    spec = (bundle / "model.toml").read_text()
    (bundle / "model.toml").write_text(spec.replace("[64, 64]", "[32, 32]"))

    ended = fluxdrop(
        "replay", "sub/ring", "--from", "predict", "--model", "larger", "--wait",
        "--root", mixed.root.path,
    )  # fmt: skip

    (error,) = [
        record["error"]
        for record in failures(mixed.root).values()
        if record["error"]["kind"] == "tensor"
    ]

    assert 1 == ended.returncode
    assert "Replay it with --from preprocess." == error["hint"]


def test_failed_only(mixed: Daemon) -> None:
    """--failed means the jobs that failed; a dry run asks for nothing."""
    ended = fluxdrop("replay", "--failed", "--dry-run", "--root", mixed.root.path)

    assert ["outputs/failed/bad.pdf", "outputs/failed/bad.png", "outputs/failed/bad.txt"] == sorted(
        line.split()[-1] for line in ended.stdout.splitlines() if "larger" not in line
    )
    assert [] == list(mixed.root.requests.iterdir())
