"""Replace the nodes whose operators the worker does not have by nodes of operators that it has.

Operators without a rewriter that ONNX defines by a function of other operators are replaced by that function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fluxdrop.predict.compiler import (
    attention,
    decompositions,
    elementwise,
    indexing,
    microsoft,
    recurrent,
    shaping,
    windows,
)
from fluxdrop.predict.compiler.functions import has_function, inline_functions
from fluxdrop.predict.compiler.microsoft import MICROSOFT
from fluxdrop.predict.compiler.operators import OPERATORS, NodeView, UnsupportedError
from fluxdrop.predict.compiler.rewriters import STANDARD, Replacement, rewriter_of
from fluxdrop.predict.compiler.shapes import (
    known_shapes,
    known_types,
    with_inferred_shapes,
    with_onnxruntime_shapes,
)
from fluxdrop.predict.compiler.tidy import dependencies

REGISTERED = (
    attention,
    decompositions,
    elementwise,
    indexing,
    microsoft,
    recurrent,
    shaping,
    windows,
)
"""The modules that register rewriters and operators when they are imported."""

OLDEST_OPSET = 20
"""The oldest opset that all nodes which the rewriters make belong to."""

_NESTED_FUNCTIONS = 4
"""How many times the operators of a function may be functions themselves."""


class _Constants(Mapping[str, NDArray[Any]]):
    """The constants of a model by name; each is decoded when it is asked for."""

    def __init__(self, tensors: dict[str, TensorProto]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self._tensors[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def rewrite(model: ModelProto, opset: int) -> ModelProto:
    """Return *model*, of version *opset* and with its shapes inferred, with only operators that the worker has.

    *model* itself may be changed. Nodes that cannot be replaced are kept.
    """
    if opset < OLDEST_OPSET:
        return model
    foreign = [
        name for node in model.graph.node if node.domain == MICROSOFT for name in node.output
    ]
    if foreign:
        model = with_onnxruntime_shapes(model, filter(None, foreign))
    _replace(model, opset)
    for _ in range(_NESTED_FUNCTIONS):
        functions = _functions(model, opset)
        if not functions:
            break
        unchanged = ModelProto()
        unchanged.CopyFrom(model)
        try:
            model = with_inferred_shapes(inline_functions(model, functions, opset))
        except (RuntimeError, ValueError):  # what onnx's inliner raises
            return unchanged
        _replace(model, opset)
    nodes = dependencies(model.graph.node, model.graph.output[0].name)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _functions(model: ModelProto, opset: int) -> list[str]:
    """Return the operators of *model* that the worker does not have, and that ONNX defines by other operators."""
    names = {node.op_type for node in model.graph.node if node.domain in STANDARD}
    return [name for name in sorted(names - OPERATORS.keys()) if has_function(name, opset)]


def _replace(model: ModelProto, opset: int) -> None:
    """Replace each node of *model* for which there is a rewriter that can do it."""
    graph = model.graph
    if any(rewriter_of(node) for node in graph.node):
        view = views(model, opset)
        nodes = [item for node in graph.node for item in _replacement(node, view(node)) or [node]]
        del graph.node[:]
        graph.node.extend(nodes)


def _replacement(node: NodeProto, view: NodeView) -> list[NodeProto]:
    """Return the nodes that replace *node*; an empty list when it has to be kept."""
    function = rewriter_of(node)
    if function is None:
        return []
    replacement = Replacement(node.output)
    try:
        function(view, replacement)
    except UnsupportedError:
        return []
    return replacement.nodes


def reason_kept(node: NodeProto, view: NodeView) -> str:
    """Return why `rewrite` left *node*, whose operator the worker does not have."""
    function = rewriter_of(node)
    if function is not None:
        try:
            function(view, Replacement(node.output))
        except UnsupportedError as error:
            return str(error)
    return "this operator is not supported"


def views(model: ModelProto, opset: int) -> Callable[[NodeProto], NodeView]:
    """Return a function that makes the view of a node of *model*."""
    shapes = known_shapes(model)
    tensors = {item.name: item for item in model.graph.initializer}
    tensors |= {
        node.output[0]: tensor for node in model.graph.node for tensor in _constant_tensors(node)
    }
    constants = _Constants(tensors)
    types = {name: kind.tensor_type.elem_type for name, kind in known_types(model).items()}
    producers = {name: node for node in model.graph.node for name in node.output}

    def view(node: NodeProto) -> NodeView:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        return NodeView(
            node.op_type, node.input, attributes, opset, shapes, constants, types, producers
        )

    return view


def _constant_tensors(node: NodeProto) -> Iterator[TensorProto]:
    """Yield the value of *node* if it is a Constant that holds numbers."""
    for attribute in node.attribute if node.op_type == "Constant" else ():
        value = helper.get_attribute_value(attribute)
        if attribute.name == "value":
            yield value
        elif attribute.name in ("value_float", "value_floats"):
            yield numpy_helper.from_array(np.asarray(value, dtype=np.float32))
        elif attribute.name in ("value_int", "value_ints"):
            yield numpy_helper.from_array(np.asarray(value, dtype=np.int64))
