"""Quantised models are rewritten with float operators that round to the same steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fluxdrop import config
from fluxdrop.files.layout import Root
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.compiler.source import normal_form, parse
from fluxdrop.predict.library import add_model
from fluxdrop.telemetry import import_onnxruntime
from support.engines import ENGINES, opened
from support.graph_files import bundle_of
from support.needs import needs_julia
from support.quantised_models import LABELS, SHAPE, WAYS, pictures, quantised

pytestmark = pytest.mark.usefixtures("lent_worker")

QUANTISED = ("Quantize", "QLinear", "QGemm", "Integer")


def unoptimised(model: ModelProto, batch: NDArray[Any]) -> NDArray[np.float32]:
    """What onnxruntime computes without its optimiser, node by node as the model says."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {model.graph.input[0].name: batch})
    return np.asarray(found)


@pytest.mark.parametrize("way", WAYS)
def test_same_steps(tmp_path: Path, way: str) -> None:
    """In each way to quantise, the rewritten model has no such operator left and gives the very same numbers."""
    model = quantised(tmp_path, way)

    rewritten = normal_form(parse(model.SerializeToString()))

    operators = {node.op_type for node in rewritten.graph.node}
    assert not [name for name in operators if any(part in name for part in QUANTISED)]
    batch = pictures(1 if "dynamic" in way else 8)
    np.testing.assert_allclose(unoptimised(rewritten, batch), unoptimised(model, batch), atol=1e-6)


@needs_julia
@pytest.mark.slow
@pytest.mark.parametrize("way", ["qdq-per-channel", "dynamic"])
def test_added(tmp_path: Path, way: str) -> None:
    """A quantised model is added for Julia; how far it is from onnxruntime is told."""
    path = tmp_path / "model.onnx"
    onnx.save(quantised(tmp_path, way), path)
    labels = [f"label {index}" for index in range(LABELS)]
    options = {"output": "softmax", "size": [SHAPE[2], SHAPE[1]]}

    added = add_model(
        Root(tmp_path), path, config.Settings(), name=None, labels=labels, options=options
    )

    assert "julia" == added.engine.engine
    assert added.difference is not None
    assert added.difference < 0.02
    assert (added.difference > 1e-4) == ("it is quantised" in str(added.remark))


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_pictures_are_independent(tmp_path: Path, name: str) -> None:
    """A model that measures the range of its input gives a picture the same numbers in any batch."""
    bundle = bundle_of(tmp_path, quantised(tmp_path, "dynamic"), size=SHAPE)
    batch = pictures(3) * np.array([1, 10, 0.1], np.float32).reshape(3, 1, 1, 1)

    with opened(name, bundle) as engine:
        together = engine.predict(batch)
        alone = np.concatenate([engine.predict(batch[index : index + 1]) for index in range(3)])

    np.testing.assert_array_equal(together, alone)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_pixels_to_steps(tmp_path: Path, name: str) -> None:
    """A model that is quantised from end to end, as TensorFlow Lite's are, takes pixels and gives real numbers."""
    constants: dict[str, NDArray[Any]] = {
        "xs": np.array(1 / 255, np.float32),
        "ws": np.array(0.02, np.float32),
        "ys": np.array(1 / 256, np.float32),
        "xz": np.array(0, np.uint8),
        "wz": np.array(120, np.uint8),
        "yz": np.array(3, np.uint8),
        "w": np.random.default_rng(3).integers(0, 256, (5, 1, 6, 8)).astype(np.uint8),
        "row": np.array([0, 5]),
    }
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    graph = helper.make_graph(
        [
            helper.make_node("QLinearConv", names, ["c"]),
            helper.make_node("Reshape", ["c", "row"], ["r"]),
            helper.make_node("DequantizeLinear", ["r", "ys", "yz"], ["d"]),
            helper.make_node("Softmax", ["d"], ["s"], axis=1),
            helper.make_node("QuantizeLinear", ["s", "ys", "xz"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 1, 6, 8])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, ["N", 5])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=5)
    bundle_of(tmp_path, model)
    toml = tmp_path / "model.toml"
    toml.write_text(toml.read_text() + "scale = 1\n")
    batch = np.random.default_rng(4).integers(0, 256, (2, 1, 6, 8))
    expected = unoptimised(model, batch.astype(np.uint8)).astype(np.float32) / 256

    with opened(name, load_bundle(str(tmp_path))) as engine:
        found = engine.predict(batch.astype(np.float32))

    np.testing.assert_array_equal(found, expected)


@needs_julia
@pytest.mark.slow
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_rounding(tmp_path: Path, kind: type[np.int8 | np.uint8]) -> None:
    """The worker rounds each number to onnxruntime's step: ties, those beyond the range, and those that are rounded."""
    zero = np.iinfo(kind).min + 100
    constants: dict[str, NDArray[Any]] = {
        "s": np.array(0.1, np.float32),
        "z": np.array(zero, kind),
        "low": np.array(np.iinfo(kind).min, kind),
        "channels": np.array([0.5, 2, 0.125], np.float32),
        "zeros": np.zeros(3, np.int8),
        "w": np.diag([1, -3, 7]).astype(np.int8).reshape(3, 3, 1, 1),
    }
    nodes = [
        *_rounded("x", "a", "z"),
        helper.make_node("MaxPool", ["a"], ["p"], kernel_shape=[1, 2], strides=[1, 2]),
        *_rounded("p", "b", "z"),
        helper.make_node("DequantizeLinear", ["w", "channels", "zeros"], ["weight"], axis=0),
        helper.make_node("Conv", ["b", "weight"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        *_rounded("r", "d", "low"),
        helper.make_node("Flatten", ["d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 40, 60])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3 * 40 * 30])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    random = np.random.default_rng(5)
    ties = (random.integers(-150, 200, (4, 3, 40, 60)) + 0.5).astype(np.float32) * np.float32(0.1)
    batch = np.concatenate([ties, np.nextafter(ties, np.float32(0)), ties + np.float32(0.03)])

    with opened("julia", bundle_of(tmp_path, model, size=(3, 40, 60))) as engine:
        found = engine.predict(batch)

    np.testing.assert_array_equal(found, unoptimised(model, batch))


def _rounded(value: str, result: str, zero: str) -> list[NodeProto]:
    """The nodes that round *value* to steps of ``s``."""
    return [
        helper.make_node("QuantizeLinear", [value, "s", zero], [f"{result}/steps"]),
        helper.make_node("DequantizeLinear", [f"{result}/steps", "s", zero], [result]),
    ]


@pytest.mark.parametrize("signed", [True, False])
def test_blocks(signed: bool) -> None:
    """Weights of 4 bits with a scale for each block of them are made real numbers."""
    kind = TensorProto.INT4 if signed else TensorProto.UINT4
    low = -8 if signed else 0
    steps = np.random.default_rng(5).integers(low, low + 16, (4, 6))
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0, block_size=2),
            helper.make_node("MatMul", ["x", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 6])],
        [
            helper.make_tensor("q", kind, steps.shape, steps.ravel()),
            numpy_helper.from_array(np.linspace(0.1, 1.2, 12, dtype=np.float32).reshape(2, 6), "s"),
            helper.make_tensor("z", kind, (2, 6), np.arange(12) % 5),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x = np.random.default_rng(6).normal(size=(3, 4)).astype(np.float32)

    rewritten = normal_form(parse(model.SerializeToString()))

    assert {"MatMul"} >= {node.op_type for node in rewritten.graph.node}
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(unoptimised(rewritten, x), np.asarray(expected), rtol=1e-5)
