"""Operators that the worker does not have: a model with one is refused by its name, with the engine that runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import GraphProto, TensorProto, helper, parser

from support import onnx_nodes
from support.graph_files import bundle_of, model_of, node, refusal


def branch(name: str, operator: str) -> GraphProto:
    """A branch of an If: *operator* on x."""
    graph: GraphProto = parser.parse_graph(
        f"{name} () => (float[1, 1, 6, 6] {name}_y) {{ {name}_y = {operator}(x) }}"
    )
    return graph


MISSING = {
    "DFT": [
        helper.make_node("Unsqueeze", ["x", "last"], ["u"]),
        helper.make_node("DFT", ["u"], ["d"]),
        helper.make_node("ReduceSum", ["d", "last"], ["y"], keepdims=0),
    ],
    "DeformConv": [node("DeformConv", "x", "weights", "offsets")],
    "Det": [node("Det", output="d"), node("Mul", "x", "d")],
    "If": [
        node("ReduceMax", "x", output="m", keepdims=0),
        node("Greater", "m", "nought", output="c"),
        helper.make_node(
            "If", ["c"], ["y"], then_branch=branch("a", "Relu"), else_branch=branch("b", "Tanh")
        ),
    ],
    "Loop": [
        helper.make_node(
            "Loop",
            ["three", "", "x"],
            ["y"],
            body=parser.parse_graph(
                "b (int64 i, bool c, float[N, 1, 6, 6] s) => (bool c2, float[N, 1, 6, 6] o)"
                " { c2 = Identity(c) o = Tanh(s) }"
            ),
        )
    ],
    "MaxUnpool": [
        helper.make_node("MaxPool", ["x"], ["m", "i"], kernel_shape=[2, 2], strides=[2, 2]),
        node("MaxUnpool", "m", "i", kernel_shape=[2, 2], strides=[2, 2]),
    ],
    "NonZero": [
        node("NonZero", output="z"),
        helper.make_node("Cast", ["z"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["m"], keepdims=0),
        node("Mul", "x", "m"),
    ],
    "Scan": [
        helper.make_node(
            "Scan",
            ["x"],
            ["y"],
            num_scan_inputs=1,
            body=parser.parse_graph("b (float[1, 6, 6] s) => (float[1, 6, 6] o) { o = Tanh(s) }"),
        )
    ],
    "Unique": [
        helper.make_node("Unique", ["x"], ["u"]),
        helper.make_node("ReduceMean", ["u"], ["m"], keepdims=0),
        node("Mul", "x", "m"),
    ],
}
"""A model with each operator of ONNX that an image model may have and the worker has not."""


@pytest.mark.parametrize("operator", MISSING)
def test_missing_operator(tmp_path: Path, operator: str) -> None:
    """Each missing operator is refused by its name, and the refusal names the engine that has it."""
    constants: dict[str, Any] = {
        "last": np.array([-1]),
        "nought": np.float32(0),
        "offsets": np.zeros((1, 18, 4, 4), np.float32),
        "three": np.array(3),
        "weights": np.ones((1, 1, 3, 3), np.float32),
    }
    used = {name for made in MISSING[operator] for name in made.input}
    model = model_of(
        *MISSING[operator],
        constants={name: value for name, value in constants.items() if name in used},
        shape=(1, 1, 6, 6),
        opset=20,
    )

    error = refusal(bundle_of(tmp_path, model, size=(1, 6, 6)))

    assert f"({operator}): this operator is not supported" in error.message
    assert "The engine onnxruntime runs it: --engine onnxruntime." == error.hint


def test_missing_operators_are_all_tried() -> None:
    """Every operator that docs/onnx-coverage.md calls missing is refused in a test."""
    assert set(MISSING) == set(onnx_nodes.MISSING_OPERATORS)
