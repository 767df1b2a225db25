"""What a model's numbers mean: told by its graph, by its outputs, or asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from onnx import ModelProto

from fluxdrop import config
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.predict.graph_end import End, graph_end
from fluxdrop.predict.library import AddedModel, add_model
from support.answer_models import class_map, model, node, sigmoid_model

ROWS = [[0.5, 2.0, -1.0], [1.0, -3.0, 4.0], [-2.0, 1.0, 0.0]]
ONE = [[3.0], [-2.0], [5.0]]
NORMALISED = (
    node("ReduceL2", output="n", axes=[1], keepdims=1),
    node("Div", "z", "n"),
)
ADDED_UP = (
    node("Exp", output="e"),
    node("ReduceSum", "e", "axes", output="s", keepdims=1),
    node("Div", "e", "s"),
)
AXES = {"axes": np.array([1])}


class Add(Protocol):
    """Adds a model with labels and options, on onnxruntime."""

    def __call__(
        self, made: ModelProto, labels: list[str] | None = None, **options: object
    ) -> AddedModel:
        """Add it."""


@pytest.fixture
def add(root: Root, tmp_path: Path) -> Add:
    """Adds a model with labels and options, on onnxruntime."""

    def call(made: ModelProto, labels: list[str] | None = None, **options: object) -> AddedModel:
        path = tmp_path / "some.onnx"
        path.write_bytes(made.SerializeToString())
        settings = config.Settings(engine="onnxruntime")
        return add_model(root, path, settings, name=None, labels=labels, options=options)

    return call


@pytest.mark.parametrize(
    ("made", "end"),
    [
        (model(ROWS), "linear"),
        (model(ROWS, node("Softmax", axis=1)), "softmax"),
        (model(ROWS, node("LogSoftmax", axis=1)), "log-softmax"),
        (sigmoid_model(0.1, 0.2), "sigmoid"),
        (model(ROWS, node("Sigmoid", output="s"), node("Flatten", "s")), "sigmoid"),
        (model(ROWS, *NORMALISED), "unit-vector"),
        (model(ROWS, node("Relu")), "other"),
        (model(ROWS, *ADDED_UP, constants=AXES), "other"),
        (class_map(["a", "b"], [0.5, 0.5]), "softmax"),
    ],
)
def test_graph_end(made: ModelProto, end: End) -> None:
    """The end is found behind nodes that only move numbers."""
    assert end == graph_end(made, made.graph.output[0].name)


@pytest.mark.parametrize(
    ("made", "labels", "output", "found_labels", "origin"),
    [
        (model(ROWS, node("Softmax", axis=1)), None, "softmax", ["0", "1", "2"], "a softmax"),
        (model(ROWS, node("LogSoftmax", axis=1)), None, "logits", ["0", "1", "2"], "log-softmax"),
        (sigmoid_model(0.1, 0.2, 0.3), None, "multi-label", ["0", "1", "2"], "a sigmoid"),
        (sigmoid_model(0.1), None, "sigmoid", ["0", "1"], "a sigmoid"),
        (sigmoid_model(0.1), ["cat"], "sigmoid", ["cat"], "a sigmoid"),
        (model(ROWS), ["a", "b", "c"], "logits", ["a", "b", "c"], "guessed: there are labels"),
        (model(ROWS), None, "logits", ["0", "1", "2"], "guessed: so few numbers"),
        (model(ROWS, *ADDED_UP, constants=AXES), None, "softmax", ["0", "1", "2"], "guessed:"),
        (model(ROWS, *NORMALISED), None, "embedding", [], "the vector's length"),
        (model([[0.5] * 1000] * 3), None, "logits", [str(n) for n in range(1000)], "ImageNet"),
        (class_map(["b", "a"], [0.3, 0.7]), None, "softmax", ["b", "a"], "a softmax"),
    ],
)
def test_found(
    add: Add,
    made: ModelProto,
    labels: list[str] | None,
    output: str,
    found_labels: list[str],
    origin: str,
) -> None:
    """The kind of output is found and kept in model.toml, with how it was found."""
    spec = add(made, labels).bundle.spec

    assert (output, found_labels) == (spec.output, spec.labels)
    assert origin in spec.origin["output"]


@pytest.mark.parametrize(
    ("made", "labels", "options", "words"),
    [
        (model(ONE), None, {}, "one number a picture, and it ends in no sigmoid"),
        (model(ONE), ["age"], {}, "--output regression if it is a value"),
        (
            model([[0.5] * 192] * 3),
            None,
            {},
            "192 numbers a picture, and nothing says what they mean",
        ),
        (model([[0.5] * 192] * 3), None, {}, "--output embedding"),
        (
            model(
                [[0.1, 0.2], [0.3, 0.3], [0.2, 0.1]], node("Sigmoid", output="s"), node("Sqrt", "s")
            ),
            ["a", "b"],
            {},
            "--output multi-label",
        ),
        (sigmoid_model(0.1, 0.2), ["a", "b"], {"output": "logits"}, "its output is not logits"),
        (sigmoid_model(0.1, 0.2), ["a", "b"], {"output": "softmax"}, "do not add up to 1"),
        (
            sigmoid_model(0.1, 0.2),
            ["a", "b"],
            {"output": "multi-label", "activation": "sigmoid"},
            "must not be applied again",
        ),
        (sigmoid_model(0.1, 0.2), ["a", "b"], {"output": "sigmoid"}, "output sigmoid is for one"),
        (sigmoid_model(0.1), ["a", "b", "c"], {}, "for one or two labels, not 3"),
        (
            model(ROWS),
            ["a"],
            {"output": "regression"},
            "gives 3 numbers a picture, and there is 1 label",
        ),
        (model(ROWS), None, {"output": "regression"}, "there is one value"),
        (class_map(["b", "a"], [0.3, 0.7]), ["c", "d"], {}, "its own labels are b, a"),
    ],
)
def test_asked(
    add: Add, made: ModelProto, labels: list[str] | None, options: dict[str, str], words: str
) -> None:
    """What cannot be told, or contradicts the graph, is refused with the options that say it."""
    with pytest.raises(FluxdropError) as caught:
        add(made, labels, **options)

    assert words in f"{caught.value.message} {caught.value.hint}"


def heads() -> ModelProto:
    """A model with heads of 1, 1024 and 100 numbers."""
    tail = [node("Gemm", "f", f"w{count}", output=f"head{count}") for count in (1, 1024, 100)]
    constants = {f"w{count}": np.ones((3, count), np.float32) for count in (1, 1024, 100)}
    shapes = {f"head{count}": ["N", count] for count in (1, 1024, 100)}
    return model(ROWS, *tail, outputs=shapes, constants=constants)


def test_heads(add: Add) -> None:
    """Of several heads none is chosen without labels; with them, the one with as many numbers is."""
    with pytest.raises(FluxdropError) as caught:
        add(heads())
    chosen = add(heads(), [f"l{n}" for n in range(100)])

    listed = "head1 [N, 1], head1024 [N, 1024], head100 [N, 100]"
    assert f"which of them has a number for each label: {listed}" in caught.value.message
    assert "--output-name" in caught.value.hint
    spec = chosen.bundle.spec
    assert (100, "head100") == (len(spec.labels), spec.output_name)


@pytest.mark.parametrize(
    ("options", "head", "kind"),
    [
        ({"output": "regression"}, "head1", "regression"),
        (
            {"output": "sigmoid", "activation": "sigmoid", "output_name": "head1"},
            "head1",
            "sigmoid",
        ),
        ({"output": "embedding", "output_name": "head1024"}, "head1024", "embedding"),
    ],
)
def test_head_for_a_kind(add: Add, options: dict[str, str], head: str, kind: str) -> None:
    """A regression takes the head of one number; others are named."""
    spec = add(heads(), None, **options).bundle.spec

    assert (head, kind) == (spec.output_name, spec.output)


PLACES = {"shape": np.array([0, 3, -1]), "order": np.array([2])}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (model(ROWS, node("Relu", "x"), outputs={"y": ["N", 3, 8, 8]}), "a segmenter"),
        (
            model(
                ROWS, node("Reshape", "x", "shape"), outputs={"y": ["N", 3, 64]}, constants=PLACES
            ),
            "a detector, a text recogniser or a model with a vector for each patch",
        ),
        (
            model(
                ROWS,
                node("Reshape", "x", "shape", output="r"),
                node("Softmax", "r", axis=2),
                outputs={"y": ["N", 3, 64]},
                constants=PLACES,
            ),
            "a text recogniser",
        ),
        (
            model(
                ROWS,
                node("Reshape", "x", "shape", output="r"),
                node("Transpose", "r", perm=[2, 0, 1]),
                outputs={"y": ["T", "N", 3]},
                constants=PLACES,
            ),
            "an output [64, N, 3], with a row for each step in time",
        ),
        (
            model(
                ROWS,
                node("Reshape", "x", "boxes", output="dets"),
                node("Reshape", "x", "shape", output="scores"),
                outputs={"dets": ["N", 48, 4], "scores": ["N", 3, 64]},
                constants={**PLACES, "boxes": np.array([0, 48, 4])},
            ),
            "an object detector",
        ),
        (model(ROWS, metadata={"task": "detect"}), "an object detector"),
        (model(ROWS, metadata={"task": "segment"}), "a segmenter"),
        (model(ROWS, node("Relu", output="boxes"), outputs={"boxes": ["N", 3]}), "output boxes"),
    ],
)
def test_not_served(add: Add, made: ModelProto, words: str) -> None:
    """A model of another kind is one sentence: what it is, that it is not served, and what is."""
    with pytest.raises(FluxdropError) as caught:
        add(made)

    assert words in caught.value.message
    assert "does not serve" in caught.value.message
    assert "Served are models with one row of numbers a picture" in caught.value.hint


def test_ultralytics_classifier(add: Add) -> None:
    """The metadata of a classifier does not keep it out."""
    made = model(ROWS, node("Softmax", axis=1), metadata={"task": "classify"})

    assert "softmax" == add(made).bundle.spec.output
