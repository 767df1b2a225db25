"""``fluxdrop model``: folders of other tools, trying a model on pictures, showing, replacing and removing it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

from fluxdrop.files.layout import Root
from fluxdrop.predict.bundle import load_bundle
from support import folders
from support.daemons import SAMPLES, fluxdrop, serving
from support.hub_server import COMMIT, serving_hub
from support.needs import needs_generation

pytestmark = pytest.mark.slow

PICTURE = SAMPLES / "round_circle_01.png"


def answer(root: Root, *words: object) -> dict[str, Any]:
    """What a `model` command answers in JSON; fails unless it worked."""
    ended = fluxdrop("model", *words, "--root", root.path, "--json", engine="onnxruntime")
    assert 0 == ended.returncode, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def refusal(root: Root, *words: object) -> str:
    """What a `model` command says that it refuses, which is one line."""
    ended = fluxdrop("model", *words, "--root", root.path, engine="onnxruntime")
    assert (2, 1) == (ended.returncode, len(ended.stderr.strip().splitlines())), ended.stderr
    return ended.stderr


def test_json_beside_onnx(root: Root, tmp_path: Path) -> None:
    """What lies beside model.onnx decides the labels and the pictures, and model show says where each came from."""
    answer(root, "add", folders.optimum(tmp_path / "trees"))
    shown = answer(root, "show", "trees")

    assert (folders.LABELS, "logits", False) == (shown["labels"], shown["output"], shown["in_use"])
    assert ([32, 32], "crop", 40, "bicubic") == tuple(
        shown["input"][key] for key in ("size", "resize", "resize_to", "filter")
    )
    assert pytest.approx([0.48145466, 0.4578275, 0.40821073]) == shown["input"]["mean"]
    assert ("config.json: id2label", "preprocessor_config.json: image_mean") == (
        shown["origin"]["labels"],
        shown["origin"]["mean"],
    )
    told = fluxdrop("model", "show", "trees", "--root", root.path).stdout
    assert ["[config.json: id2label]" in told, "in use" in told] == [True, False]


def test_guesses_are_told(root: Root, tmp_path: Path) -> None:
    """That labels and normalisation were guessed is a warning, which an agreement with onnxruntime does not hide."""
    onnx.save(folders.linear_network(), tmp_path / "bare.onnx")
    path = tmp_path / "bare.onnx"
    ended = fluxdrop(
        "model", "add", path, "--root", root.path, "--output", "logits", engine="onnxruntime"
    )
    stated = answer(
        root,
        "add",
        path,
        "--name",
        "b",
        "--labels",
        "a,b,c",
        "--preset",
        "imagenet",
        "--output",
        "logits",
    )

    assert [
        "Warning: labels were guessed" in ended.stderr,
        "Warning: scale was guessed" in ended.stderr,
    ] == [
        True,
        True,
    ]
    assert [] == stated["warnings"]
    assert ("preset imagenet", "preset imagenet", "option") == tuple(
        stated["origin"][key] for key in ("mean", "resize_to", "labels")
    )
    assert "of onnxruntime" not in ended.stdout


def test_try(root: Root, tmp_path: Path) -> None:
    """--try tells what the model says of pictures and keeps what it saw of each; so do those in samples/."""
    folder = folders.optimum(tmp_path / "trees")
    (folder / "samples").mkdir()
    shutil.copyfile(SAMPLES / "angular_star_01.png", folder / "samples" / "star.png")
    tried = answer(root, "add", folder, "--try", PICTURE, PICTURE)["tried"]
    told = fluxdrop(
        "model", "add", folder, "--name", "b", "--root", root.path, engine="onnxruntime"
    ).stdout

    assert [PICTURE.name, PICTURE.name, "star.png"] == [item["picture"] for item in tried]
    for item in tried:
        assert (set(folders.LABELS), pytest.approx(1)) == (
            set(item["probabilities"]),
            sum(item["probabilities"].values()),
        )
        with Image.open(item["seen"]) as seen:
            assert (32, 32) == seen.size
    assert "star.png: " in told
    assert "picture" in refusal(root, "add", folder, "--name", "c", "--try", __file__)


def test_replace_and_remove(root: Root, tmp_path: Path) -> None:
    """A model's preprocessing changes under its name with --replace, which keeps the rest; remove ends it."""
    answer(root, "add", folders.optimum(tmp_path / "trees"))
    taken = refusal(root, "add", tmp_path / "trees")
    answer(root, "add", "trees", "--replace", "--mean", "0.5", "--labels", "a,b,c")
    bundle = load_bundle("trees", root.models)
    embedded = refusal(root, "add", tmp_path / "trees", "--name", "round-or-angular", "--replace")
    gone = answer(root, "remove", "trees")

    assert "--replace" in taken
    assert ((0.5,), ["a", "b", "c"], 40) == (
        bundle.spec.input.mean,
        bundle.spec.labels,
        bundle.spec.input.resize_to,
    )
    assert ("option", "preprocessor_config.json: size") == (
        bundle.spec.origin["mean"],
        bundle.spec.origin["resize_to"],
    )
    assert "is embedded" in embedded
    assert (str(bundle.folder), []) == (gone["folder"], list(root.models.iterdir()))
    assert "There is no model bundle trees" in refusal(root, "remove", "trees")
    assert "is embedded" in refusal(root, "remove", "round-or-angular")


def test_in_use(root: Root, tmp_path: Path) -> None:
    """The model in use is not removed, and not replaced under a daemon that runs with it."""
    folder = folders.optimum(tmp_path / "trees")
    answer(root, "add", folder)
    answer(root, "use", "trees")
    kept = refusal(root, "remove", "trees")
    answer(root, "add", folder, "--replace")
    with serving(root, engine="onnxruntime"):
        served = refusal(root, "add", folder, "--replace")
    answer(root, "use", "round-or-angular")
    with serving(root, engine="onnxruntime", model="trees"):
        by_variable = refusal(root, "add", folder, "--replace"), refusal(root, "remove", "trees")

    assert [True] * 4 == [
        words in told
        for words, told in zip(
            ("is in use", "that runs", "that runs", "is in use"),
            (kept, served, *by_variable),
            strict=True,
        )
    ]


@needs_generation
def test_transformers(root: Root, tmp_path: Path) -> None:
    """A folder that save_pretrained wrote is exported, and answers as transformers itself does on the pictures."""
    folder = folders.vit(tmp_path / "vit", problem_type="multi_label_classification")
    added = answer(root, "add", folder, "--try", *sorted(SAMPLES.glob("*.png"))[:4])
    compared = added["comparison"]

    assert (folders.LABELS, "multi-label") == (added["labels"], added["output"])
    assert ([], 4) == (added["warnings"], len(added["tried"]))
    assert 4 < compared["pictures"] == compared["same_first"]
    assert (True, True) == (compared["difference"] < 1e-4, compared["levels"] < 0.01)
    assert compared["original"].startswith("transformers ")


@needs_generation
def test_what_cannot_be_exported(root: Root, tmp_path: Path) -> None:
    """Weights that lack a layer, or have none but a pickle, are refused: nothing random or foreign is added."""
    folder = folders.vit(tmp_path / "vit")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    lacking = refusal(root, "add", folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    pickled = refusal(root, "add", folder)

    assert ("which would be random" in lacking, "is a pickle" in pickled) == (True, True)
    assert [] == list(root.models.iterdir())


@needs_generation
def test_hub(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """hub:OWNER/NAME downloads ONNX or safetensors and JSON files, and nothing else; then the cache does without."""
    folder = folders.optimum(tmp_path / "trees")
    for name in ("pytorch_model.bin", "script.py", "config.py", "..\\up.json", "c:up.json"):
        (folder / name).write_text("raise SystemExit")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with serving_hub(folder, "someone/trees") as (address, fetched):
        monkeypatch.setenv("HF_ENDPOINT", address)
        added = answer(root, "add", "hub:someone/trees")
        nobody = refusal(root, "add", "hub:someone/else")
    cached = answer(root, "add", f"hub:someone/trees@{COMMIT}", "--name", "again")
    unreachable = refusal(root, "add", "hub:someone/else")

    assert {"config.json", "preprocessor_config.json", "model.onnx"} == set(fetched)
    assert ("trees", folders.LABELS) == (added["name"], cached["labels"])
    assert "The hub has no model someone/else" in nobody
    assert "The hub cannot be reached" in unreachable
    for name in ("trees", "../trees", "someone/trees@../up", "someone/trees@..", "someone/%2e%2e"):
        assert "names no model of the hub" in refusal(root, "add", f"hub:{name}")


@needs_generation
def test_hub_with_pickles(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of which the hub has pickles only is refused before anything is downloaded."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "pytorch_model.bin").write_text("raise SystemExit")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with serving_hub(tmp_path / "model", "someone/trees") as (address, fetched):
        monkeypatch.setenv("HF_ENDPOINT", address)
        refused = refusal(root, "add", "hub:someone/trees")

    assert (True, []) == ("has pickles only (pytorch_model.bin)" in refused, fetched)
