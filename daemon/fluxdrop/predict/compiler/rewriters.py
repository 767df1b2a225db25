"""The registry of rewriters: functions that replace a node by nodes of operators that the worker has.

A rewriter is one small function: see `attention`, `decompositions` and `microsoft`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from fluxdrop.predict.compiler.operators import NodeView

STANDARD = ("", "ai.onnx")
"""The names of the domain of ONNX's standard operators."""

Rewriter = Callable[[NodeView, "Replacement"], None]
"""Adds the nodes that compute a node's outputs; raises UnsupportedError when that is not possible."""

_REWRITERS: dict[tuple[str, str], Rewriter] = {}


def rewriter(*names: str, domain: str = "") -> Callable[[Rewriter], Rewriter]:
    """Register the decorated function for the operators *names* of *domain*."""

    def register(function: Rewriter) -> Rewriter:
        _REWRITERS.update(dict.fromkeys(((domain, name) for name in names), function))
        return function

    return register


class Replacement:
    """The nodes that replace one node.

    An operand is the name of a value, an array or a number, which becomes a constant, or None for an absent input.
    """

    def __init__(self, outputs: Sequence[str]) -> None:
        self.nodes: list[NodeProto] = []
        self.outputs = outputs
        """The names of the replaced node's outputs; empty ones are not computed."""

    def add(self, operator: str, *operands: Any, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        return self._append(operator, "", operands, attributes)

    def add_all(self, operator: str, *operands: Any, **attributes: Any) -> list[str]:
        """Add a node with as many outputs as the replaced node, and return their names."""
        first = self._append(operator, "", operands, attributes)
        results = [first, *(f"{first}/{index}" for index in range(1, len(self.outputs)))]
        self.nodes[-1].output.extend(results[1:])
        return results

    def finish(self, operator: str, *operands: Any, output: int = 0, **attributes: Any) -> None:
        """Add the node that computes *output* of the replaced node."""
        self._append(operator, self.outputs[output], operands, attributes)

    def reads(self, output: int) -> bool:
        """Return whether the replaced node computes *output*."""
        return len(self.outputs) > output and bool(self.outputs[output])

    def _append(self, operator: str, result: str, operands: Sequence[Any], attributes: Any) -> str:
        inputs = [self._name_of(operand) for operand in operands]
        while inputs and not inputs[-1]:
            inputs.pop()
        result = result or self._new_name()
        self.nodes.append(helper.make_node(operator, inputs, [result], result, **attributes))
        return result

    def _name_of(self, operand: Any) -> str:
        """Return the name of *operand*, for which a Constant node is added if it is none."""
        if operand is None or isinstance(operand, str):
            return operand or ""
        array = np.asarray(operand)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = self._new_name()
        value = numpy_helper.from_array(array)
        self.nodes.append(helper.make_node("Constant", [], [name], name, value=value))
        return name

    def _new_name(self) -> str:
        return f"{next(name for name in self.outputs if name)}/{len(self.nodes)}"


def rewriter_of(node: NodeProto) -> Rewriter | None:
    """Return the rewriter of the operator of *node*; None if it has none."""
    return _REWRITERS.get(("" if node.domain in STANDARD else node.domain, node.op_type))
