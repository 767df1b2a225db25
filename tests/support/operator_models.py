"""A model with every operator that can be written as Flux code, each in a branch of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fluxdrop.telemetry import import_onnxruntime

SHAPE = (3, 8, 6)
Constants = tuple[NDArray[Any], ...]

_RANDOM = np.random.default_rng(17)


def _floats(*shape: int) -> NDArray[np.float32]:
    return _RANDOM.standard_normal(shape).astype(np.float32)


def _ints(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def _number(value: float) -> NDArray[np.float32]:
    return np.array(value, dtype=np.float32)


_POSITIVE = np.abs(_floats(3)) + 1

BRANCHES: list[tuple[str, Constants, dict[str, Any]]] = [
    *((name, (), {}) for name in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish")),
    *((name, (), {}) for name in ("Abs", "Neg", "Exp", "Floor", "Ceil", "Round", "Sign", "Sin")),
    *((name, (), {}) for name in ("Cos", "Atan", "Sinh", "Asinh", "Mish", "Selu", "HardSigmoid")),
    *((name, (), {"alpha": 0.3}) for name in ("LeakyRelu", "Elu", "Celu", "ThresholdedRelu")),
    ("Gelu", (), {"approximate": "tanh"}),
    ("Gelu", (), {}),
    ("Clip", (_number(-0.5), _number(0.7)), {}),
    ("Clip", (_number(0), _number(6)), {}),
    ("Add", (_floats(3, 1, 1),), {}),
    ("Sub", (_number(0.5),), {}),
    ("Mul", (_floats(3, 1, 1),), {}),
    ("Div", (_floats(1, 3, 8, 6) + 3,), {}),
    ("Pow", (_number(2),), {}),
    ("PRelu", (_floats(3, 1, 1),), {}),
    ("Min", (_floats(6),), {}),
    ("Max", (_floats(6), _number(0)), {}),
    ("Sum", (_floats(6),), {}),
    ("Mean", (_floats(6),), {}),
    ("Softmax", (), {"axis": 1}),
    ("LogSoftmax", (), {"axis": -1}),
    ("Conv", (_floats(4, 3, 3, 2), _floats(4)), {"strides": [2, 1], "pads": [1, 0, 2, 1]}),
    ("Conv", (_floats(6, 1, 3, 3),), {"group": 3, "dilations": [2, 1]}),
    (
        "ConvTranspose",
        (_floats(3, 2, 3, 3), _floats(2)),
        {"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 2]},
    ),
    ("BatchNormalization", (_floats(3), _floats(3), _floats(3), _POSITIVE), {"epsilon": 1e-3}),
    ("InstanceNormalization", (_floats(3), _floats(3)), {}),
    ("GroupNormalization", (_floats(3), _floats(3)), {"num_groups": 3}),
    ("LayerNormalization", (_floats(6), _floats(6)), {"epsilon": 1e-2}),
    ("LayerNormalization", (_floats(8, 6),), {"axis": 2}),
    ("MaxPool", (), {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", (), {"kernel_shape": [3, 3], "pads": [1, 1, 0, 1]}),
    ("AveragePool", (), {"kernel_shape": [2, 3], "strides": [2, 3]}),
    ("AveragePool", (), {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}),
    ("GlobalMaxPool", (), {}),
    ("GlobalAveragePool", (), {}),
    *(
        (name, (_ints(1, 2),), {"keepdims": keeps})
        for name in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2")
        for keeps in (0, 1)
    ),
    *((name, (_ints(-1),), {}) for name in ("ReduceMean", "ReduceSumSquare", "ReduceLogSumExp")),
    ("ReduceMean", (_ints(2, 3),), {"keepdims": 0}),
    ("Reshape", (_ints(0, 2, -1, 6),), {}),
    ("Unsqueeze", (_ints(1, 5),), {}),
    ("Flatten", (), {"axis": 1}),
    ("Transpose", (), {"perm": [0, 3, 1, 2]}),
    ("Concat", (), {"axis": 2}),
    ("Slice", (_ints(1, -1), _ints(7, 0), _ints(2, 3), _ints(2, -2)), {}),
    ("Gather", (_ints(2, 0, -1),), {"axis": 2}),
    ("Gather", (np.array(1, dtype=np.int64),), {"axis": 3}),
    ("Split", (), {"axis": 2, "num_outputs": 3}),
    ("Tile", (_ints(1, 2, 1, 3),), {}),
    ("Pad", (_ints(0, 0, 1, 2, 0, 1, 3, 0), _number(0.5)), {}),
    ("Pad", (_ints(0, 0, 1, 2, 0, 0, 3, 0),), {"mode": "reflect"}),
    ("Pad", (_ints(0, 0, 1, 2, 0, 0, 3, 0),), {"mode": "edge"}),
    ("Resize", (_floats(0), np.array([1, 1, 2, 3], np.float32)), {"mode": "nearest"}),
    ("Resize", (_floats(0), np.array([1, 1, 2, 1.5], np.float32)), {"mode": "linear"}),
    ("SpaceToDepth", (), {"blocksize": 2}),
    ("MatMul", (_floats(6, 4),), {}),
]


def every_operator() -> bytes:
    """A model from x of [N, *SHAPE] to one number for each of the `BRANCHES`, and for a few that combine values.

    Each is a product with random weights, so that numbers in another order are other answers.
    """
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    results: list[str] = []

    def keep(array: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(array, f"c{len(constants)}"))
        return constants[-1].name

    def node(operator: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> list[str]:
        made = [f"v{len(nodes)}_{number}" for number in range(outputs)]
        nodes.append(helper.make_node(operator, inputs, made, name=f"n{len(nodes)}", **attributes))
        return made

    def measure(value: str) -> None:
        weights = keep(_floats(_numbers_in(nodes, constants, value), 1))
        (flat,) = node("Flatten", [value], axis=1)
        results.extend(node("MatMul", [flat, weights]))

    for operator, arrays, attributes in BRANCHES:
        inputs = ["x", *(["x"] if operator == "Concat" else []), *map(keep, arrays)]
        outputs = node(operator, inputs, attributes.get("num_outputs", 1), **attributes)
        measure(outputs[-1])
    (depth,) = node("SpaceToDepth", ["x"], blocksize=2)
    for mode in ("DCR", "CRD"):
        measure(node("DepthToSpace", [depth], blocksize=2, mode=mode)[0])
    (turned,) = node("Transpose", ["x"], perm=[0, 1, 3, 2])
    measure(node("MatMul", ["x", turned])[0])
    (larger,) = node("Greater", ["x", keep(_number(0.1))])
    measure(node("Where", [larger, "x", keep(_floats(6))])[0])
    (colour,) = node("GlobalAveragePool", ["x"])
    measure(node("Expand", [colour, keep(_ints(1, 3, 2, 5))])[0])
    (positive,) = node("Abs", ["x"])
    measure(node("Sqrt", [positive])[0])
    node("Concat", results, axis=1)
    model: bytes = _model(nodes, constants, nodes[-1].output[0], len(results)).SerializeToString()
    return model


def _numbers_in(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], value: str) -> int:
    """How many numbers *value* has for one picture."""
    model = _model(nodes, constants, value, None).SerializeToString()
    session = import_onnxruntime().InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = session.run([value], {"x": _floats(1, *SHAPE)})
    return int(found.size)


def _model(
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    output: str,
    columns: int | None,
) -> onnx.ModelProto:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE])
    result = helper.make_tensor_value_info(
        output, TensorProto.FLOAT, ["N", columns] if columns else None
    )
    graph = helper.make_graph(nodes, "operators", [given], [result], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
