"""What the worker can build: for each ONNX operator its attributes, complete, as the graph file wants them.

One small function an operator. Semantics: the ONNX operator reference (https://onnx.ai/onnx/operators/).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluxdrop.predict.compiler.graph_file import Attribute


class UnsupportedError(Exception):
    """The worker cannot do this node; the message is the reason."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One ONNX node with what is known about its inputs."""

    operator: str
    inputs: Sequence[str]
    attributes: dict[str, Any]
    opset: int
    shapes: dict[str, tuple[int, ...] | None]
    constants: dict[str, NDArray[Any]]

    def rank(self, index: int = 0) -> int:
        """The number of dimensions of input *index*. Raises UnsupportedError when it is not known."""
        shape = self.shapes.get(self.inputs[index])
        if shape is None:
            raise UnsupportedError("the number of dimensions of its input is not known")
        return len(shape)

    def ints(self, name: str, default: Sequence[int]) -> list[int]:
        """The attribute *name*, a list of integers."""
        return [int(value) for value in self.attributes.get(name, default)]

    def constant(self, index: int) -> NDArray[Any]:
        """The value of input *index*. Raises UnsupportedError when it is computed."""
        name = self.inputs[index] if index < len(self.inputs) else ""
        value = self.constants.get(name)
        if value is None:
            raise UnsupportedError(f"its input {index} has to be a constant")
        return value


Build = Callable[[NodeView], dict[str, Attribute]]
OPERATORS: dict[str, Build] = {}


def operator(*names: str) -> Callable[[Build], Build]:
    """Register a function that makes the attributes of the operators *names*."""

    def register(build: Build) -> Build:
        OPERATORS.update(dict.fromkeys(names, build))
        return build

    return register


def axis(node: NodeView, default: int) -> int:
    """The attribute ``axis``, counted from the front."""
    rank = node.rank()
    value = int(node.attributes.get("axis", default))
    if not -rank <= value <= rank:
        raise UnsupportedError(f"its axis {value} does not exist in {rank} dimensions")
    return value + rank if value < 0 else value


@operator("Relu", "Sigmoid", "Tanh", "Identity", "Dropout", "GlobalAveragePool", "GlobalMaxPool")
@operator("Add", "Sub", "Mul", "Div", "MatMul")
def _plain(node: NodeView) -> dict[str, Attribute]:
    return {}


@operator("Conv")
def _conv(node: NodeView) -> dict[str, Attribute]:
    kernel = node.constant(1).shape[2:]
    return {**_window(node, kernel), "group": int(node.attributes.get("group", 1))}


@operator("MaxPool", "AveragePool")
def _pool(node: NodeView) -> dict[str, Attribute]:
    kernel = node.ints("kernel_shape", ())
    extra: dict[str, Attribute] = {"kernel_shape": kernel}
    extra["ceil_mode"] = int(node.attributes.get("ceil_mode", 0))
    if node.operator == "AveragePool":
        extra["count_include_pad"] = int(node.attributes.get("count_include_pad", 0))
    return {**_window(node, kernel), **extra}


@operator("BatchNormalization")
def _batch_normalization(node: NodeView) -> dict[str, Attribute]:
    if node.attributes.get("training_mode", 0):
        raise UnsupportedError("it is in training mode; export the model for inference")
    return {"epsilon": float(node.attributes.get("epsilon", 1e-5))}


@operator("Gemm")
def _gemm(node: NodeView) -> dict[str, Attribute]:
    return {
        "alpha": float(node.attributes.get("alpha", 1.0)),
        "beta": float(node.attributes.get("beta", 1.0)),
        "transA": int(node.attributes.get("transA", 0)),
        "transB": int(node.attributes.get("transB", 0)),
    }


@operator("Flatten")
def _flatten(node: NodeView) -> dict[str, Attribute]:
    return {"axis": axis(node, 1)}


@operator("Softmax", "LogSoftmax")
def _softmax(node: NodeView) -> dict[str, Attribute]:
    # Before opset 13 all dimensions from the axis on were one; the same thing only when the axis is the last one.
    value = axis(node, -1 if node.opset >= 13 else 1)
    if node.opset < 13 and value != node.rank() - 1:
        raise UnsupportedError(f"its axis {value} is not the last one, in opset {node.opset}")
    return {"axis": value}


@operator("LeakyRelu")
def _leaky_relu(node: NodeView) -> dict[str, Attribute]:
    return {"alpha": float(node.attributes.get("alpha", 0.01))}


@operator("Elu")
def _elu(node: NodeView) -> dict[str, Attribute]:
    return {"alpha": float(node.attributes.get("alpha", 1.0))}


@operator("Reshape")
def _reshape(node: NodeView) -> dict[str, Attribute]:
    node.constant(1)
    return {"allowzero": int(node.attributes.get("allowzero", 0))}


@operator("Transpose")
def _transpose(node: NodeView) -> dict[str, Attribute]:
    return {"perm": node.ints("perm", range(node.rank())[::-1])}


@operator("Concat")
def _concat(node: NodeView) -> dict[str, Attribute]:
    return {"axis": axis(node, 1)}


def _window(node: NodeView, kernel: Sequence[int]) -> dict[str, Attribute]:
    dimensions = len(kernel)
    strides = node.ints("strides", [1] * dimensions)
    dilations = node.ints("dilations", [1] * dimensions)
    return {
        "strides": strides,
        "dilations": dilations,
        "pads": _pads(node, kernel, strides, dilations),
    }


def _pads(
    node: NodeView, kernel: Sequence[int], strides: list[int], dilations: list[int]
) -> list[int]:
    mode = node.attributes.get("auto_pad", b"NOTSET").decode()
    if mode == "NOTSET":
        return node.ints("pads", [0] * (2 * len(kernel)))
    if mode == "VALID":
        return [0] * (2 * len(kernel))
    sizes = (node.shapes.get(node.inputs[0]) or ())[2:]
    if len(sizes) != len(kernel) or any(size < 1 for size in sizes):
        raise UnsupportedError(f"its auto_pad {mode} needs an input of known size")
    begin, end = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (int(np.ceil(size / stride)) - 1) * stride + (width - 1) * dilation + 1
        total = max(0, reach - size)
        small, large = total // 2, total - total // 2
        begin.append(large if mode == "SAME_LOWER" else small)
        end.append(small if mode == "SAME_LOWER" else large)
    return begin + end
