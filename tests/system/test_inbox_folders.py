"""Folders of the inbox with models of their own, served by real daemons."""

from __future__ import annotations

import shutil
from typing import Any

from fluxdrop.config import Settings
from fluxdrop.files.layout import Root
from support.answer_models import bundle, model, red_picture, sigmoid_model
from support.daemons import SAMPLES, failures, fluxdrop, results

AGE = 'output = "regression"\nvalue_name = "age"\nunit = "years"'
FOUND = 'labels = ["red", "round", "big"]\noutput = "multi-label"'


def make_models(root: Root) -> None:
    """Install in *root* the models `age`, `found` and `vector`, none of which has a label of the default one."""
    bundle(root.models / "age", model([[37.25], [0.0], [0.0]]), AGE)
    bundle(root.models / "found", sigmoid_model(0.118, 0.645, 0.553), FOUND)
    rows = [[1.5, -2.0, 0.25], [0.0] * 3, [0.0] * 3]
    bundle(root.models / "vector", model(rows), 'output = "embedding"')


def configure(root: Root, text: str) -> None:
    """Write *text* to fluxdrop.toml."""
    (root.path / "fluxdrop.toml").write_text(
        f'engine = "onnxruntime"\nsettle_seconds = 0.1\n{text}'
    )


def drop(root: Root, *names: str) -> None:
    """Drop a red picture under each of *names*, and a sample under those that end in `sample.png`."""
    for name in names:
        target = root.inbox / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("sample.png"):
            shutil.copyfile(SAMPLES / "round_circle_01.png", target)
        else:
            red_picture(target)


def run_once(root: Root) -> str:
    """Do all that waits in *root*; what the daemon printed."""
    ended = fluxdrop("run", "--once", "--root", root.path)
    assert 0 == ended.returncode, ended.stderr
    return ended.stderr


def said(record: dict[str, Any]) -> tuple[str | None, str, Any]:
    """The folder and the model of *record*, and its answer in short."""
    answer = (
        record["values"] or record["labels"] or record["embedding"] or record["top"][0]["label"]
    )
    return record["folder"], record["model"]["bundle"], answer


def test_a_folder_a_model(root: Root) -> None:
    """What is dropped below a configured folder is answered by its model, by that of the most specific one, and all
    else by the model in use, in one flood of all of them."""
    make_models(root)
    configure(root, '[folders.xray]\nmodel = "age"\n[folders."xray/hands"]\nmodel = "found"\n')
    drop(
        root, "sample.png", "xray/a.png", "xray/deep/b.png", "xray/hands/c.png", "xrays/sample.png"
    )
    run_once(root)

    age = [{"name": "age", "value": 37.25, "unit": "years"}]
    assert {} == failures(root)
    assert {
        "sample.json": (None, Settings().model, "round"),
        "xray/a.json": ("xray", "age", age),
        "xray/deep/b.json": ("xray", "age", age),
        "xray/hands/c.json": ("xray/hands", "found", ["round", "big"]),
        "xrays/sample.json": (None, Settings().model, "round"),
    } == {name: said(record) for name, record in results(root).items()}
