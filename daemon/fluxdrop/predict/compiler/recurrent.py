"""LSTM, GRU and RNN: the attributes that the worker needs, and what it does not do.

Semantics: the operator's page in the ONNX documentation, https://onnx.ai/onnx/operators/onnx__NAME.html.
"""

from __future__ import annotations

from fluxdrop.predict.compiler.graph_file import Attribute
from fluxdrop.predict.compiler.operators import NodeView, UnsupportedError, operator
from fluxdrop.predict.compiler.rewriters import Replacement, rewriter

_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_KNOWN = {name.lower(): name for name in ("Sigmoid", "Tanh", "Relu", "HardSigmoid")}
_LENGTHS = 4


@operator("LSTM", "GRU", "RNN")
def _recurrent(node: NodeView) -> dict[str, Attribute]:
    for name in ("clip", "activation_alpha", "activation_beta"):
        if name in node.attributes:
            raise UnsupportedError(f"it has the attribute {name}")
    for name in ("input_forget", "layout"):
        if node.attributes.get(name, 0):
            raise UnsupportedError(f"its {name} is not 0")
    _check_lengths(node)
    direction = node.text("direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    defaults = _ACTIVATIONS[node.operator] * directions
    # An RNN may have one more than it uses: the default of the schema is for two directions.
    names = (node.attributes.get("activations") or defaults)[: len(defaults)]
    activations = [name.decode() if isinstance(name, bytes) else name for name in names]
    for name in activations:
        if name.lower() not in _KNOWN:
            raise UnsupportedError(f"its activation {name} is not supported")
    attributes: dict[str, Attribute] = {
        "direction": direction,
        "activations": ",".join(_KNOWN[name.lower()] for name in activations),
    }
    if node.operator == "GRU":
        attributes["linear_before_reset"] = int(node.attributes.get("linear_before_reset", 0))
    return attributes


def _check_lengths(node: NodeView) -> None:
    """Raise UnsupportedError unless each sequence has all steps."""
    if len(node.inputs) > _LENGTHS and node.inputs[_LENGTHS]:
        steps = (node.shapes.get(node.inputs[0]) or (-1,))[0]
        if not (node.constant(_LENGTHS) == steps).all():
            raise UnsupportedError("its sequences are of different lengths")


@rewriter("LSTM", "GRU", "RNN")
def _batch_first(node: NodeView, new: Replacement) -> None:
    """Move the batches of a node with ``layout`` 1 to where they are with ``layout`` 0."""
    if not node.attributes.get("layout", 0):
        raise UnsupportedError("it has its batches where they belong")
    attributes = {name: value for name, value in node.attributes.items() if name != "layout"}
    inputs: list[str | None] = [name or None for name in node.inputs]
    for index in (0, 5, 6):
        if index < len(inputs) and inputs[index]:
            inputs[index] = new.add("Transpose", inputs[index], perm=[1, 0, 2])
    results = new.add_all(node.operator, *inputs, **attributes)
    # All states are [steps, directions, batch, hidden], the last one is [directions, batch, hidden].
    for output, order in enumerate(([2, 0, 1, 3], [1, 0, 2], [1, 0, 2])):
        if new.reads(output):
            new.finish("Transpose", results[output], output=output, perm=order)
