"""Operators that pick and replace elements by their indices, and running sums: the attributes that the worker needs.

Semantics: the operator's page in the ONNX documentation, https://onnx.ai/onnx/operators/onnx__NAME.html.
"""

from __future__ import annotations

from fluxdrop.predict.compiler.graph_file import Attribute
from fluxdrop.predict.compiler.operators import NodeView, operator
from fluxdrop.predict.compiler.shaping import resolve_axis_if_known


@operator("GatherElements")
def _gather_elements(node: NodeView) -> dict[str, Attribute]:
    return {"axis": resolve_axis_if_known(node, 0)}


@operator("ScatterElements")
def _scatter_elements(node: NodeView) -> dict[str, Attribute]:
    return {"axis": resolve_axis_if_known(node, 0), "reduction": node.text("reduction", "none")}


@operator("ScatterND")
def _scatter_nd(node: NodeView) -> dict[str, Attribute]:
    return {"reduction": node.text("reduction", "none")}


@operator("TopK")
def _top_k(node: NodeView) -> dict[str, Attribute]:
    # Elements that may come in any order come in order, too.
    return {
        "axis": resolve_axis_if_known(node, -1),
        "largest": int(node.attributes.get("largest", 1)),
    }


@operator("CumSum", "CumProd")
def _cumulative(node: NodeView) -> dict[str, Attribute]:
    return {name: int(node.attributes.get(name, 0)) for name in ("exclusive", "reverse")}
