"""Operators that move elements or return shapes: the attributes that the worker needs.

Semantics: the operator's page in the ONNX documentation, https://onnx.ai/onnx/operators/onnx__NAME.html.
"""

from __future__ import annotations

from onnx import numpy_helper

from fluxdrop.predict.compiler.graph_file import Attribute
from fluxdrop.predict.compiler.operators import (
    NodeView,
    UnsupportedError,
    no_attributes,
    operator,
    resolve_axis,
)

_MAX_INT64 = 2**63 - 1


def resolve_axis_if_known(node: NodeView, default: int) -> int:
    """Return the attribute ``axis``: non-negative if the number of dimensions is known, else unchanged.

    Raises:
        UnsupportedError: When the axis does not exist.
    """
    if node.shapes.get(node.inputs[0]) is None:
        return int(node.attributes.get("axis", default))
    return resolve_axis(node, default)


operator("Squeeze", "Unsqueeze", "Slice", "Expand", "Tile", "Size", "Range")(no_attributes)


@operator("Flatten")
def _flatten(node: NodeView) -> dict[str, Attribute]:
    return {"axis": resolve_axis_if_known(node, 1)}


@operator("Reshape")
def _reshape(node: NodeView) -> dict[str, Attribute]:
    return {"allowzero": int(node.attributes.get("allowzero", 0))}


@operator("Transpose")
def _transpose(node: NodeView) -> dict[str, Attribute]:
    if "perm" in node.attributes:
        return {"perm": node.ints("perm", ())}
    return {"perm": list(range(node.rank()))[::-1]}


@operator("Concat")
def _concat(node: NodeView) -> dict[str, Attribute]:
    return {"axis": resolve_axis_if_known(node, 1)}


@operator("Gather")
def _gather(node: NodeView) -> dict[str, Attribute]:
    return {"axis": resolve_axis_if_known(node, 0)}


@operator("GatherND")
def _gather_nd(node: NodeView) -> dict[str, Attribute]:
    return {"batch_dims": int(node.attributes.get("batch_dims", 0))}


@operator("Split")
def _split(node: NodeView) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {"axis": resolve_axis_if_known(node, 0)}
    if "num_outputs" in node.attributes:
        attributes["num_outputs"] = int(node.attributes["num_outputs"])
    return attributes


@operator("Shape")
def _shape(node: NodeView) -> dict[str, Attribute]:
    return {
        "start": int(node.attributes.get("start", 0)),
        "end": int(node.attributes.get("end", _MAX_INT64)),
    }


@operator("ConstantOfShape")
def _constant_of_shape(node: NodeView) -> dict[str, Attribute]:
    if "value" not in node.attributes:
        return {"value": 0.0}
    value = numpy_helper.to_array(node.attributes["value"]).reshape(-1)
    if len(value) != 1 or value.dtype.kind not in "fiub":
        raise UnsupportedError("its value is not one number")
    # In a graph file a float has a decimal point or exponent, and the worker takes the type from that.
    return {"value": float(value[0]) if value.dtype.kind == "f" else int(value[0])}
