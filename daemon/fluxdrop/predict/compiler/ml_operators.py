"""Rewrite the linear operators of ai.onnx.ml, which skl2onnx exports, with ONNX's standard operators.

Semantics: the operator's page in the ONNX documentation, https://onnx.ai/onnx/operators/onnx_aionnxml_NAME.html.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from onnx import ModelProto, NodeProto, helper, numpy_helper

_TRANSFORMS = {b"NONE": "Identity", b"SOFTMAX": "Softmax", b"LOGISTIC": "Sigmoid"}
_NORMS = {b"L1": "ReduceL1", b"L2": "ReduceL2"}


def rewrite_ml_operators(model: ModelProto, opset: int) -> ModelProto:
    """Return *model*, of version *opset*, with Scaler, LinearClassifier, LinearRegressor and Normalizer replaced.

    Other operators of ai.onnx.ml, and variants that cannot be rewritten, are kept.
    """
    if not any(node.domain == "ai.onnx.ml" for node in model.graph.node):
        return model
    changed = ModelProto()
    changed.CopyFrom(model)
    del changed.graph.node[:]
    for node in model.graph.node:
        replacement = _rewrite(node, opset) if node.domain == "ai.onnx.ml" else []
        for index, item in enumerate(replacement):
            item.name = f"{node.name or node.op_type}/{index}"
        changed.graph.node.extend(replacement or [node])
    return changed


def _rewrite(node: NodeProto, opset: int) -> list[NodeProto]:
    """Return the nodes that replace *node*; an empty list when it cannot be rewritten."""
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    match node.op_type:
        case "Scaler":
            return _scaler(node, attributes)
        case "LinearClassifier":
            return _linear_classifier(node, attributes)
        case "LinearRegressor":
            return _linear_regressor(node, attributes)
        case "Normalizer":
            return _normalizer(node, attributes, opset)
        case _:
            return []


def _scaler(node: NodeProto, attributes: dict[str, Any]) -> list[NodeProto]:
    """Return nodes for ``(x - offset) * scale``."""
    (y,) = node.output
    return [
        _constant(f"{y}/offset", attributes.get("offset", [0.0])),
        _constant(f"{y}/scale", attributes.get("scale", [1.0])),
        helper.make_node("Sub", [node.input[0], f"{y}/offset"], [f"{y}/moved"]),
        helper.make_node("Mul", [f"{y}/moved", f"{y}/scale"], [y]),
    ]


def _linear_classifier(node: NodeProto, attributes: dict[str, Any]) -> list[NodeProto]:
    """Return nodes for the scores: a Gemm, and the function that ``post_transform`` names."""
    # The first output, the label with the best score, is not used.
    scores = node.output[1]
    labels = attributes.get("classlabels_ints") or attributes.get("classlabels_strings") or []
    transform = _TRANSFORMS.get(attributes.get("post_transform", b"NONE"))
    weights = np.array(attributes["coefficients"])
    # With two labels there may be scores for one only, of which onnxruntime derives the other's.
    intercepts = attributes.get("intercepts") or [0.0] * len(labels)
    if transform is None or len(intercepts) != len(labels) or len(weights) % len(labels):
        return []
    return _linear(node.input[0], weights.reshape(len(labels), -1), intercepts, transform, scores)


def _linear_regressor(node: NodeProto, attributes: dict[str, Any]) -> list[NodeProto]:
    """Return nodes for the values of each target: a Gemm, and the function that ``post_transform`` names."""
    targets = attributes.get("targets", 1)
    transform = _TRANSFORMS.get(attributes.get("post_transform", b"NONE"))
    weights = np.array(attributes.get("coefficients", []))
    intercepts = attributes.get("intercepts") or [0.0] * targets
    if transform is None or not weights.size or len(intercepts) != targets:
        return []
    rows = weights.reshape(targets, -1)
    return _linear(node.input[0], rows, intercepts, transform, node.output[0])


def _linear(
    given: str, weights: ArrayLike, intercepts: ArrayLike, transform: str, result: str
) -> list[NodeProto]:
    """Return nodes for *transform* of the product of *given* and the rows of *weights*, plus *intercepts*."""
    return [
        _constant(f"{result}/weights", weights),
        _constant(f"{result}/intercepts", intercepts),
        helper.make_node(
            "Gemm",
            [given, f"{result}/weights", f"{result}/intercepts"],
            [f"{result}/raw"],
            transB=1,
        ),
        helper.make_node(transform, [f"{result}/raw"], [result]),
    ]


def _normalizer(node: NodeProto, attributes: dict[str, Any], opset: int) -> list[NodeProto]:
    """Return nodes that divide each row by its L1 or L2 norm."""
    (y,) = node.output
    operator = _NORMS.get(attributes.get("norm", b"MAX"))
    if operator is None:
        return []
    smallest = np.finfo(np.float32).tiny
    if opset < 18:
        reduce = helper.make_node(operator, [node.input[0]], [f"{y}/norm"], axes=[1])
    else:
        reduce = helper.make_node(operator, [node.input[0], f"{y}/axes"], [f"{y}/norm"])
    return [
        _constant(f"{y}/axes", np.array([1])),
        reduce,
        # A row of zeros stays zero, instead of a division by zero.
        _constant(f"{y}/least", [smallest]),
        helper.make_node("Max", [f"{y}/norm", f"{y}/least"], [f"{y}/divisor"]),
        helper.make_node("Div", [node.input[0], f"{y}/divisor"], [y]),
    ]


def _constant(name: str, values: ArrayLike) -> NodeProto:
    """Return a Constant node; floats become float32."""
    array = np.asarray(values)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
