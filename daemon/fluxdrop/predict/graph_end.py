"""What a model's graph ends in, as far as that says what its numbers mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import ModelProto, NodeProto

End = Literal["softmax", "log-softmax", "sigmoid", "unit-vector", "linear", "other"]
"""``linear`` is a layer with a bias, as classifiers end in; ``unit-vector`` a division by the Euclidean norm."""

_KEEP_VALUES = {
    "Cast",
    "CastLike",
    "DequantizeLinear",
    "Dropout",
    "Flatten",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "ZipMap",
}
_ENDS: dict[str, End] = {
    "Softmax": "softmax",
    "QLinearSoftmax": "softmax",
    "QLinearSigmoid": "sigmoid",
    "LogSoftmax": "log-softmax",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
    "LpNormalization": "unit-vector",
    "Gemm": "linear",
    "Conv": "linear",
    "QLinearConv": "linear",
    "QGemm": "linear",
}
_KEEP_NORM = {*_KEEP_VALUES, "Clip", "Max", "Expand", "Sqrt", "Add", "Pow"}


def graph_end(model: ModelProto, output: str) -> End:
    """Return what the output *output* of *model* ends in, beyond nodes that only move or copy its numbers."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = _last(makers, output, _KEEP_VALUES)
    if node is None:
        return "other"
    if node.op_type == "Div" and len(node.input) == 2:
        norm = _last(makers, node.input[1], _KEEP_NORM)
        is_norm = norm is not None and norm.op_type in ("ReduceL2", "ReduceSumSquare")
        return "unit-vector" if is_norm else "other"
    if node.op_type == "GlobalAveragePool":
        # Some networks convolve to a score for each label and place, and take the mean of the places.
        maker = _last(makers, node.input[0], _KEEP_VALUES)
        return "linear" if maker is not None and maker.op_type == "Conv" else "other"
    if node.op_type == "Add":
        summands = [makers.get(name) for name in node.input]
        is_layer = None in summands and any(
            maker is not None and maker.op_type == "MatMul" for maker in summands
        )
        return "linear" if is_layer else "other"
    return _ENDS.get(node.op_type, "other")


def operators(model: ModelProto) -> Iterator[str]:
    """Yield the operator of each node of *model*'s main graph."""
    for node in model.graph.node:
        yield node.op_type


def _last(makers: dict[str, NodeProto], name: str, passed: set[str]) -> NodeProto | None:
    """Return the node that computes *name*, before those whose operators are in *passed*."""
    node = makers.get(name)
    while node is not None and node.op_type in passed and node.input:
        node = makers.get(node.input[0])
    return node
