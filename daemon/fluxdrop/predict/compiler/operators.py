"""What the worker can build: for each ONNX operator its attributes, complete, as the graph file wants them.

One small function an operator. Semantics: the ONNX operator reference (https://onnx.ai/onnx/operators/).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
