"""The registry of supported ONNX operators.

For each operator one small function returns all attributes of a node as the graph file has them, with
ONNX's defaults filled in: see `elementwise`, `shaping` and `windows`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from fluxdrop.predict.compiler.graph_file import Attribute


class UnsupportedError(Exception):
    """The worker cannot run this node; the message is the reason."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One ONNX node, with what is known about its inputs."""

    operator: str
    inputs: Sequence[str]
    attributes: dict[str, Any]
    """The attributes that the node has, without ONNX's defaults."""
    opset: int
    shapes: dict[str, tuple[int, ...] | None]
    """The shapes of the graph's values by name: -1 is a dynamic dimension, None an unknown shape."""
    constants: Mapping[str, NDArray[Any]]
    """The graph's constants by name."""
    types: Mapping[str, int] = field(default_factory=dict)
    """The element types of the graph's values by name, as `TensorProto` numbers them; only those that are known."""
    producers: Mapping[str, NodeProto] = field(default_factory=dict)
    """The nodes that compute the graph's values, by the value's name."""

    def rank(self, index: int = 0) -> int:
        """Return the number of dimensions of input *index*.

        Raises:
            UnsupportedError: When it is not known.
        """
        shape = self.shapes.get(self.inputs[index])
        if shape is None:
            raise UnsupportedError("the number of dimensions of its input is not known")
        return len(shape)

    def element_type(self, index: int = 0) -> int:
        """Return the element type of input *index*, float32 if it is not known."""
        return self.types.get(self.inputs[index], int(TensorProto.FLOAT))

    def ints(self, name: str, default: Sequence[int]) -> list[int]:
        """Return the attribute *name*, a list of integers; *default* if the node does not have it."""
        return [int(value) for value in self.attributes.get(name, default)]

    def number(self, name: str, default: float) -> float:
        """Return the attribute *name*, a floating-point number; *default* if the node does not have it."""
        return float(self.attributes.get(name, default))

    def text(self, name: str, default: str) -> str:
        """Return the attribute *name*, a text; *default* if the node does not have it."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def constant(self, index: int) -> NDArray[Any]:
        """Return the value of input *index*.

        Raises:
            UnsupportedError: When the input is not a constant.
        """
        name = self.inputs[index] if index < len(self.inputs) else ""
        value = self.constants.get(name)
        if value is None:
            raise UnsupportedError(f"its input {index} has to be a constant")
        return value


AttributeBuilder = Callable[[NodeView], dict[str, Attribute]]
"""Returns the attributes of a node; raises UnsupportedError when the worker cannot run it."""

OPERATORS: dict[str, AttributeBuilder] = {}
"""The functions by operator; `operator` fills it when the modules with the functions are imported."""


def operator(*names: str) -> Callable[[AttributeBuilder], AttributeBuilder]:
    """Register the decorated function for the operators *names*."""

    def register(build: AttributeBuilder) -> AttributeBuilder:
        OPERATORS.update(dict.fromkeys(names, build))
        return build

    return register


def no_attributes(_node: NodeView) -> dict[str, Attribute]:
    """Return nothing, for an operator that has no attributes or gets them as inputs."""
    return {}


def resolve_axis(node: NodeView, default: int) -> int:
    """Return the attribute ``axis``, made non-negative.

    Raises:
        UnsupportedError: When the axis does not exist, or the number of dimensions is not known.
    """
    rank = node.rank()
    value = int(node.attributes.get("axis", default))
    if not -rank <= value <= rank:
        raise UnsupportedError(f"its axis {value} does not exist in {rank} dimensions")
    return value + rank if value < 0 else value
