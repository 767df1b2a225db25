"""Models as other tools and other years wrote them: weights among the inputs, nodes in any order, odd outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from fluxdrop.predict.engine import label_rows
from support.engines import ENGINES, opened
from support.graph_files import bundle_of, compile_model, model_of, node, refusal


def test_weights_among_the_inputs(tmp_path: Path) -> None:
    """A file of IR version 3 lists its weights as inputs, before the picture; equal ones stay apart."""
    model = model_of(
        node("Mul", "x", "two", output="a"),
        node("Add", "a", "also_two"),
        inputs=("two", "x", "also_two"),
        constants={name: np.full(1, 2, np.float32) for name in ("two", "also_two")},
        opset=9,
    )
    model.ir_version = 3

    parsed = compile_model(tmp_path, model)

    assert "x" == parsed.input[0]
    assert ["Mul", "Add"] == [item["operator"] for item in parsed.nodes]


def test_unsorted_nodes(tmp_path: Path) -> None:
    """Nodes that come before what they read are sorted, as converters of float types append their casts."""
    model = model_of(node("Relu", "b"), node("Tanh", "a", output="b"), node("Neg", "x", output="a"))

    parsed = compile_model(tmp_path, model)

    assert ["Neg", "Tanh", "Relu"] == [item["operator"] for item in parsed.nodes]


def test_circle(tmp_path: Path) -> None:
    """Nodes that need each other are no valid model."""
    model = model_of(node("Relu", "a"), node("Add", "y", "x", output="a"))

    assert "is not a valid ONNX model" in refusal(bundle_of(tmp_path, model)).message


@pytest.mark.parametrize(
    ("given", "pictures", "rows"),
    [
        ((2, 5, 1, 1), 2, (2, 5)),
        ((2, 5, 1), 2, (2, 5)),
        ((1, 1, 1, 1), 1, (1, 1)),
        ((5,), 1, (1, 5)),
        ((2,), 2, (2, 1)),
        ((), 1, (1, 1)),
        ((2, 5), 2, (2, 5)),
        ((2, 5, 1, 3), 2, (2, 5, 1, 3)),
    ],
)
def test_label_rows(given: tuple[int, ...], pictures: int, rows: tuple[int, ...]) -> None:
    """An output with one row of numbers a picture becomes [N, K]; any other is left as it is."""
    assert rows == label_rows(np.zeros(given, np.float32), pictures).shape


def squeezed(last: str) -> ModelProto:
    """A model of fixed batch size 1 that ends in *last*, and gives the sums of the rows of its picture."""
    axes = {"reduced": [3], "squeezed": [0, 1, 3]}
    nodes = [node("ReduceSum", "x", "reduced", output="sums", keepdims=1)]
    if last == "Transpose":
        nodes.append(node("Transpose", "sums", perm=[0, 2, 1, 3]))
    else:
        nodes.append(node("Squeeze", "sums", "squeezed"))
    constants = {key: np.array(value) for key, value in axes.items()}
    model = model_of(*nodes, constants=constants, shape=(1, 1, 6, 8))
    shape = (1, 6, 1, 1) if last == "Transpose" else (6,)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    model.graph.output[0].CopyFrom(output)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("last", ["Transpose", "Squeeze"])
@pytest.mark.parametrize("name", ENGINES)
def test_odd_outputs(tmp_path: Path, name: str, last: str) -> None:
    """An output of shape [N, K, 1, 1], or [K] of one picture, is one row a picture in each engine."""
    bundle = bundle_of(tmp_path, squeezed(last))
    pictures = np.arange(3 * 48, dtype=np.float32).reshape(3, 1, 6, 8)

    with opened(name, bundle) as engine:
        found = engine.predict(pictures)

    np.testing.assert_array_equal(pictures.sum(axis=3)[:, 0], found)
