"""A small network, quantised in all ways that onnxruntime's tools and the standard have."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from fluxdrop.telemetry import import_onnxruntime

SHAPE = (3, 16, 16)
LABELS = 5


def network() -> ModelProto:
    """A network of float32 with the layers that classifiers have."""
    random = np.random.default_rng(1)
    sizes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "w3": (8, LABELS), "b3": (LABELS,)}
    sizes["w4"] = (LABELS, LABELS)
    weights = {name: random.normal(size=size) for name, size in sizes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["c2"], ["s2"]),
        helper.make_node("LeakyRelu", ["c2"], ["l2"], alpha=0.1),
        helper.make_node("Mul", ["s2", "l2"], ["m2"]),
        helper.make_node("Add", ["m2", "p"], ["a"]),
        helper.make_node("Concat", ["a", "p"], ["k"], axis=2),
        helper.make_node("AveragePool", ["k"], ["v"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["v"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["z"]),
        helper.make_node("MatMul", ["z", "w4"], ["m"]),
        helper.make_node("Softmax", ["m"], ["y"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", *SHAPE])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", LABELS])],
        [
            numpy_helper.from_array(np.float32(0.3) * value.astype(np.float32), name)
            for name, value in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pictures(count: int) -> NDArray[np.float32]:
    """Random tensors for the network."""
    return np.random.default_rng(2).random((count, *SHAPE)).astype(np.float32)


def quantised(folder: Path, way: str) -> ModelProto:
    """The network, quantised in one of WAYS."""
    return quantise(network(), pictures(4), folder, way)


def quantise(model: ModelProto, batch: NDArray[np.float32], folder: Path, way: str) -> ModelProto:
    """Return *model* quantised in one of WAYS, with ranges measured on *batch*; *folder* is for files."""
    tools = _quantization()
    options = WAYS[way]
    source, target = folder / "float.onnx", folder / f"{way}.onnx"
    onnx.save(model, source)
    # The tools advise, by the root logger, to run others before.
    logging.disable(logging.WARNING)
    try:
        if way.startswith("dynamic"):
            tools.quantize_dynamic(source, target, **_named(options))
        else:
            reader = _Reader(model.graph.input[0].name, batch)
            tools.quantize_static(source, target, reader, **_named(options))
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load(target)


WAYS: dict[str, dict[str, Any]] = {
    "qdq": {"quant_format": "QDQ"},
    "qdq-per-channel": {"quant_format": "QDQ", "per_channel": True},
    "qdq-16-bits": {"quant_format": "QDQ", "activation_type": "QUInt16"},
    "operators": {"quant_format": "QOperator", "activation_type": "QUInt8"},
    "operators-per-channel": {"quant_format": "QOperator", "per_channel": True},
    "dynamic": {},
    "dynamic-per-channel": {"per_channel": True, "weight_type": "QInt8"},
}


def _quantization() -> Any:
    """The tools of onnxruntime, which is imported where its telemetry is switched off."""
    import_onnxruntime()
    return importlib.import_module("onnxruntime.quantization")


def _named(options: dict[str, Any]) -> dict[str, Any]:
    tools = _quantization()
    kinds = {
        "quant_format": tools.QuantFormat,
        "activation_type": tools.QuantType,
        "weight_type": tools.QuantType,
    }
    return {key: kinds[key][value] if key in kinds else value for key, value in options.items()}


class _Reader:
    """Yields the batch that the ranges are measured on."""

    def __init__(self, name: str, batch: NDArray[np.float32]) -> None:
        self._name = name
        self._batches = iter([batch])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}
