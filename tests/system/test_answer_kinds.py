"""A picture through the daemon with a model of each kind: the JSON, what the commands show, and a replay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from fluxdrop.files.layout import Root
from support.answer_models import bundle, model, red_picture, sigmoid_model
from support.daemons import failures, fluxdrop, results

pytestmark = pytest.mark.slow

KINDS = {
    "multi-label": (
        sigmoid_model(0.118, 0.645, 0.553),
        'labels = ["red", "round", "big"]\noutput = "multi-label"\nthresholds = [0.5, 0.5, 0.6]',
    ),
    "regression": (
        model([[37.25], [0.0], [0.0]]),
        'output = "regression"\nvalue_name = "age"\nunit = "years"',
    ),
    "embedding": (model([[1.5, -2.0, 0.25], [0.0] * 3, [0.0] * 3]), 'output = "embedding"'),
}
SHOWN = {
    "multi-label": (["round"], "labels", "round"),
    "regression": (["age 37.25 years"], "age", "37.25 years"),
    "embedding": (["3 numbers"], "embedding", "3 numbers"),
}


def served(root: Root, folder: Path, made: ModelProto, toml: str) -> dict[str, Any]:
    """The result of a red picture in *root*, by this model."""
    found = bundle(folder / "model", made, toml)
    red_picture(root.inbox / "red.png")
    settings = {"engine": "onnxruntime", "model": str(found.folder)}

    ended = fluxdrop("run", "--once", "--root", root.path, **settings)

    assert (0, {}) == (ended.returncode, failures(root)), ended.stderr
    return results(root)["red.json"]


@pytest.mark.parametrize("kind", KINDS)
def test_served(root: Root, tmp_path: Path, kind: str) -> None:
    """Each kind has its own fields in the JSON, and `jobs` and `show` tell the answer."""
    record = served(root, tmp_path, *KINDS[kind])
    jobs = json.loads(fluxdrop("jobs", "--root", root.path, "--json").stdout)
    shown = fluxdrop("show", "red", "--root", root.path).stdout

    labels, title, text = SHOWN[kind]
    assert (kind, labels) == (record["kind"], jobs[0]["labels"])
    assert any(line.split() == [title, *text.split()] for line in shown.splitlines())
    if kind == "multi-label":
        expected = {"red": 0.118, "round": 0.645, "big": 0.553}
        assert pytest.approx(expected, abs=1e-6) == record["probabilities"]
        assert ["round"] == record["labels"]
    elif kind == "regression":
        assert [{"name": "age", "value": 37.25, "unit": "years"}] == record["values"]
    else:
        vector = np.load(root.path / record["embedding"]["file"])
        assert [1.5, -2.0, 0.25] == vector.tolist()
        assert {"file": "outputs/red.npy", "dimension": 3} == record["embedding"]


def test_many_labels(root: Root, tmp_path: Path) -> None:
    """Of 1,000 labels a result lists 100, or all if `result_labels` is 0; `predict` prints five."""
    labels = [f"l{n}" for n in range(1000)]
    rows = [[n / 100 for n in range(1000)], [0.0] * 1000, [0.0] * 1000]
    made = model(rows)
    toml = f'labels = {json.dumps(labels)}\noutput = "logits"'

    record = served(root, tmp_path, made, toml)
    picture = red_picture(tmp_path / "red.png")
    flags = ["--model", str(tmp_path / "model"), "--engine", "onnxruntime"]
    printed = fluxdrop("predict", picture, *flags).stdout.split()[1::2]
    three = fluxdrop("predict", picture, *flags, "--top", "3").stdout.split()[1::2]
    everything = json.loads(fluxdrop("predict", picture, *flags, "--json").stdout)
    red_picture(root.inbox / "red.png")
    settings = {"engine": "onnxruntime", "model": str(tmp_path / "model"), "result_labels": "0"}
    fluxdrop("run", "--once", "--root", root.path, **settings)

    assert (1000, labels[900:]) == (record["label_count"], list(record["probabilities"]))
    assert (labels[:994:-1], labels[:996:-1]) == (printed, three)
    assert labels == list(everything["probabilities"])
    assert labels == list(results(root)["red-2.json"]["probabilities"])
