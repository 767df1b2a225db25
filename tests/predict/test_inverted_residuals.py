"""Inverted residuals, whose pointwise and depthwise convolutions the worker computes together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fluxdrop.predict.compiler.fusion import fuse
from fluxdrop.predict.compiler.lower import lower
from fluxdrop.predict.compiler.source import normal_form
from fluxdrop.predict.node_check import Run
from fluxdrop.telemetry import import_onnxruntime
from support.needs import needs_julia

pytestmark = [pytest.mark.slow, needs_julia]

Floats = NDArray[np.float32]


def silu(value: str) -> list[NodeProto]:
    """The nodes of the SiLU of *value*, as exporters write it."""
    return [
        helper.make_node("Sigmoid", [value], [f"{value}_gate"]),
        helper.make_node("Mul", [value, f"{value}_gate"], [f"{value}_silu"]),
    ]


def block(channels: int, expanded: int, kernel: int, stride: int, pads: list[int]) -> ModelProto:
    """An EfficientNet's block: expansion, depthwise convolution, squeeze-and-excitation, projection; then the mean."""
    random = np.random.default_rng(expanded)
    squeezed = max(1, channels // 4)
    shapes = {
        "expand": (expanded, channels, 1, 1),
        "depthwise": (expanded, 1, kernel, kernel),
        "squeeze": (squeezed, expanded, 1, 1),
        "excite": (expanded, squeezed, 1, 1),
        "project": (channels, expanded, 1, 1),
    }
    tensors = []
    for name, shape in shapes.items():
        weight = random.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[1:]))
        bias = random.standard_normal(shape[0], np.float32)
        tensors.append(numpy_helper.from_array(weight.astype(np.float32), name))
        tensors.append(numpy_helper.from_array(bias, f"{name}_bias"))

    def conv(value: str, name: str, **options: Any) -> NodeProto:
        return helper.make_node("Conv", [value, name, f"{name}_bias"], [f"{name}d"], **options)

    nodes = [
        conv("x", "expand"),
        *silu("expandd"),
        conv("expandd_silu", "depthwise", group=expanded, strides=[stride, stride], pads=pads),
        *silu("depthwised"),
        helper.make_node("GlobalAveragePool", ["depthwised_silu"], ["mean"]),
        conv("mean", "squeeze"),
        *silu("squeezed"),
        conv("squeezed_silu", "excite"),
        helper.make_node("Sigmoid", ["excited"], ["scale"]),
        helper.make_node("Mul", ["depthwised_silu", "scale"], ["scaled"]),
        conv("scaled", "project"),
    ]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, "h", "w"])],
        [helper.make_tensor_value_info("projectd", TensorProto.FLOAT, None)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("height", "width", "channels", "expanded", "kernel", "stride", "pads"),
    [
        (7, 7, 12, 72, 5, 1, [2, 2, 2, 2]),
        (14, 14, 20, 120, 3, 1, [1, 1, 1, 1]),
        (29, 31, 6, 36, 3, 2, [0, 0, 1, 1]),
        (57, 56, 3, 17, 5, 2, [1, 2, 2, 1]),
        (5, 113, 4, 25, 5, 1, [2, 2, 2, 2]),
        (80, 3, 5, 33, 3, 1, [1, 0, 2, 3]),
        (2, 2, 8, 48, 3, 2, [1, 1, 1, 1]),
    ],
)
def test_block(
    run: Run,
    batch: int,
    height: int,
    width: int,
    channels: int,
    expanded: int,
    kernel: int,
    stride: int,
    pads: list[int],
) -> None:
    """A block gives what onnxruntime gives, in the first pass, on one thread, and in those after it, on all."""
    model = block(channels, expanded, kernel, stride, pads)
    shape = (batch, channels, height, width)
    x: Floats = np.random.default_rng(1).standard_normal(shape, np.float32)
    session = import_onnxruntime().InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, {"x": x})
    graph = fuse(lower(normal_form(model)))

    found = [run(graph, x), run(graph, x)]

    for answer in found:
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)
