"""Lower an ONNX graph in its normal form to the worker's graph, node by node."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fluxdrop.predict.compiler.graph_file import Graph, Node
from fluxdrop.predict.compiler.operators import OPERATORS, NodeView, UnsupportedError
from fluxdrop.predict.compiler.rewriters import STANDARD
from fluxdrop.predict.compiler.rewriting import reason_kept
from fluxdrop.predict.compiler.shapes import known_shapes
from fluxdrop.predict.compiler.source import opset_of


def lower(model: ModelProto) -> Graph:
    """Return the worker's graph for *model*, which has one input and one output.

    Raises:
        UnsupportedError: When the worker cannot run some nodes. The message has for each of their
            operators the first node and the reason.
    """
    graph = model.graph
    constants = {item.name: _constant(item) for item in graph.initializer}
    (model_input,) = [item for item in graph.input if item.name not in constants]
    shapes = known_shapes(model)
    lowered = Graph(
        input=model_input.name,
        input_shape=shapes[model_input.name] or (),
        output=graph.output[0].name,
    )
    opset = opset_of(model)
    problems: dict[str, tuple[str, str]] = {}
    for index, proto in enumerate(graph.node):
        name = proto.name or f"{proto.op_type}_{index}"
        try:
            if proto.op_type == "Constant":
                constants[proto.output[0]] = _constant_node(proto)
            else:
                lowered.nodes.append(_node(proto, name, opset, shapes, constants))
        except UnsupportedError as error:
            problems.setdefault(_full_name(proto), (name, str(error)))
    if problems:
        raise UnsupportedError(_sentence(problems))
    if lowered.output in constants:
        raise UnsupportedError(f"its output {lowered.output} does not depend on its input")
    used = {name for node in lowered.nodes for name in node.inputs}
    lowered.tensors = {name: value for name, value in constants.items() if name in used}
    return lowered


def _node(
    proto: NodeProto,
    name: str,
    opset: int,
    shapes: dict[str, tuple[int, ...] | None],
    constants: dict[str, NDArray[Any]],
) -> Node:
    """Return the graph's node for *proto*; raise UnsupportedError if its operator is not registered."""
    attributes = {item.name: helper.get_attribute_value(item) for item in proto.attribute}
    view = NodeView(proto.op_type, proto.input, attributes, opset, shapes, constants)
    build = OPERATORS.get(proto.op_type)
    if build is None or proto.domain not in STANDARD:
        raise UnsupportedError(reason_kept(proto, view))
    return Node(proto.op_type, list(proto.input), list(proto.output), name, build(view))


def _full_name(proto: NodeProto) -> str:
    """Return the operator of *proto*, with its domain if that is not ONNX's."""
    return proto.op_type if proto.domain in STANDARD else f"{proto.domain}.{proto.op_type}"


def _sentence(problems: dict[str, tuple[str, str]]) -> str:
    """Return what is wrong, of the first node and the reason for each operator."""
    nodes: dict[str, list[str]] = {}
    for operator, (name, reason) in problems.items():
        nodes.setdefault(reason, []).append(f"{name} ({operator})")
    parts = []
    for reason, names in nodes.items():
        if len(names) == 1:
            parts.append(f"node {names[0]}: {reason}")
        else:
            several = reason.replace("this operator is", "these operators are")
            parts.append(f"nodes {', '.join(names)}: {several}")
    return "; ".join(parts)


def _constant(tensor: TensorProto) -> NDArray[Any]:
    """Return *tensor* as float32 or int64, little-endian."""
    array = numpy_helper.to_array(tensor)
    if array.dtype.kind in "iub":
        return array.astype("<i8", copy=False)
    if array.dtype.kind != "f":
        raise UnsupportedError(f"the tensor {tensor.name} holds {array.dtype}, not numbers")
    return array.astype("<f4", copy=False)


def _constant_node(proto: NodeProto) -> NDArray[Any]:
    """Return the value of a Constant node."""
    for attribute in proto.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return _constant(value)
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(value, dtype="<f4")
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(value, dtype="<i8")
    raise UnsupportedError("its value is neither a tensor nor numbers")
