"""Replace quantised tensors by float32 tensors of the same whole numbers: what all operators need for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

_NARROW = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16)
_RANGES: dict[int, tuple[int, int]] = {
    TensorProto.UINT4: (0, 15),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT16: (-32768, 32767),
}
_OPAQUE = ("Cast", "Shape", "Size", "ArgMax", "ArgMin")
"""Operators whose output is no quantised tensor even if their input is one."""


class CannotRewrite(Exception):
    """A variant of an operator that has no rewriting; `lower` reports the operator."""


class Rewriter:
    """Replaces the nodes of one model in place.

    Args:
        model: A model whose floats are all float32, of opset 11 or newer.
        ranks: The numbers of dimensions of its values, by name, as far as they are known.
    """

    def __init__(self, model: ModelProto, ranks: dict[str, int]) -> None:
        self._graph = model.graph
        self._constants = {item.name: item for item in model.graph.initializer}
        self._ranks: dict[str, int] = ranks | {
            item.name: len(item.dims) for item in model.graph.initializer
        }
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t
        self._floats: dict[str, str] = {}
        """The float32 form of integer constants, and of quantised tensors themselves, by name."""
        self._nodes: list[NodeProto] = []
        self._count = 0

    def run(self, find: Callable[[NodeProto], Rewriting | None]) -> None:
        """Replace each node for which *find* returns a function, unless that raises CannotRewrite."""
        for node in list(self._graph.node):
            before = len(self._nodes)
            try:
                if (rewrite := find(node)) is not None:
                    attributes = {
                        item.name: helper.get_attribute_value(item) for item in node.attribute
                    }
                    rewrite(self, node, attributes)
                    self._name_after(node, before)
                else:
                    self._nodes.append(self._passed_on(node))
            except CannotRewrite:
                del self._nodes[before:]
                self._nodes.append(node)
        # These state the original types, and are inferred again.
        del self._graph.value_info[:]
        for item in self._graph.output:
            if item.name in self._floats:
                item.type.tensor_type.elem_type = TensorProto.FLOAT
        nodes = [NodeProto.FromString(node.SerializeToString()) for node in self._nodes]
        del self._graph.node[:]
        self._graph.node.extend(nodes)

    def _name_after(self, node: NodeProto, first: int) -> None:
        for index, made in enumerate(self._nodes[first:]):
            made.name = f"{node.name or node.output[0]}/{index}"

    def _passed_on(self, node: NodeProto) -> NodeProto:
        """Return *node*, which works on floats as on integers, with float inputs."""
        if not any(name in self._floats and name not in self._constants for name in node.input):
            return node
        changed = NodeProto()
        changed.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name in self._constants and self._constants[name].data_type in _NARROW:
                changed.input[index] = self.real(name)
        if node.op_type not in _OPAQUE:
            self.are_floats(node.output)
        return changed

    def are_floats(self, names: Iterable[str]) -> None:
        """Note that the quantised tensors *names* are float tensors now."""
        self._floats |= {name: name for name in names if name}

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = output or self._new_name()
        self._nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: ArrayLike) -> str:
        """Return the name of a new constant."""
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        name = self._new_name()
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _new_name(self) -> str:
        self._count += 1
        return f"fluxdrop/quantised/{self._count}"

    def real(self, name: str) -> str:
        """Return the name of the float32 form of the value *name*."""
        if name in self._constants and self._constants[name].data_type == TensorProto.FLOAT:
            return name
        if name in self._constants and name not in self._floats:
            array = numpy_helper.to_array(self._constants[name]).astype(np.float32)
            self._floats[name] = self.constant(array)
        return self._floats.get(name) or self.add("Cast", name, to=TensorProto.FLOAT)

    def has_one_number(self, name: str) -> bool:
        """Return whether the value *name* is known to be one number."""
        return self._ranks.get(name) == 0 or self.value(name, size=1) is not None

    def rank(self, name: str) -> int:
        """Return the number of dimensions of the value *name*."""
        if name not in self._ranks:
            raise CannotRewrite
        return self._ranks[name]

    def along(self, name: str, trailing: int) -> str:
        """Return the scale or zero point *name* for a dimension that so many others follow."""
        if trailing == 0 or self.has_one_number(name):
            return self.real(name)
        return self.add("Reshape", self.real(name), self.constant([-1] + [1] * trailing))

    def value(self, name: str, size: int | None = None) -> NDArray[Any] | None:
        """Return the constant *name*; None if it is none, or has another *size*."""
        if name not in self._constants:
            return None
        array = numpy_helper.to_array(self._constants[name])
        return array if size in (None, array.size) else None

    def centred(self, name: str, zero: str, trailing: int = 0) -> str:
        """Return *name* minus its zero point, which may be absent or zero."""
        point = self.value(zero)
        if not zero or (point is not None and not point.any()):
            return self.real(name)
        return self.add("Sub", self.real(name), self.along(zero, trailing))

    def dequantised(self, name: str, scale: str, zero: str, output: str = "") -> str:
        """Return the real numbers of *name*, which has one scale for all."""
        centred = self.centred(name, zero)
        return self.add("Mul", centred, self.real(scale), output=output)

    def rounded(self, steps: str, zero: str, output: str, kind: int = 0, trailing: int = 0) -> None:
        """Compute the quantised tensor *output* from *steps*, the real numbers divided by the scale.

        Its type is that of the zero point; without one it is *kind*, or uint8.
        """
        if zero in self._constants:
            kind = self._constants[zero].data_type
        if (kind or TensorProto.UINT8) not in _RANGES:
            raise CannotRewrite
        low, high = _RANGES[kind or TensorProto.UINT8]
        steps = self.add("Round", steps)
        point = self.value(zero)
        if zero and (point is None or point.any()):
            steps = self.add("Add", steps, self.along(zero, trailing))
        bounds = (self.constant(float(low)), self.constant(float(high)))
        self.add("Clip", steps, *bounds, output=output)
        self.are_floats([output])

    def scaled(self, sums: str, scales: Sequence[str], step: str, trailing: int) -> str:
        """Return *sums* times the *scales*, of which the last may be one a channel, divided by *step* if given."""
        factor = self.add("Mul", self.real(scales[0]), self.real(scales[1]))
        if step:
            factor = self.add("Div", factor, self.real(step))
        if trailing and not self.has_one_number(scales[1]):
            factor = self.add("Reshape", factor, self.constant([-1] + [1] * trailing))
        return self.add("Mul", sums, factor)


Rewriting = Callable[[Rewriter, NodeProto, dict[str, Any]], None]
"""Adds the nodes that replace a node with these attributes; raises CannotRewrite."""
