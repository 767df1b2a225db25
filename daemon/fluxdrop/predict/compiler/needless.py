"""Remove nodes that change nothing, because a value is rounded to the steps of a quantised tensor before or after them.

Quantisers round what each layer computes, also if the layer only chooses among numbers that are rounded already, as a
MaxPool does. Others round after a Relu, whose limit the rounding has as well. Each is a pass through memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fluxdrop.predict.compiler.graph_file import Graph, Node

_CHOOSING = ("Flatten", "GlobalMaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
"""Operators whose output has numbers of their first input only."""


_MOST_STEPS = 1 << 16
"""The steps on either side of 0 that 16 bits have. The product of a few more bits and a scale is no longer exact enough
that its quotient by the scale is rounded to the same step."""


class _Steps(NamedTuple):
    """What a FakeQuantize makes of numbers: multiples of *scale*, from *low* to *high* times it."""

    scale: np.float32
    low: np.float32
    high: np.float32


def remove_needless(graph: Graph) -> Graph:
    """Return *graph*, in which `fuse_fake_quantise` made FakeQuantize nodes, without nodes that change nothing.

    - A FakeQuantize of numbers that the same FakeQuantize made already.
    - A Relu or Clip whose limits are not within those of the FakeQuantize that alone reads its output.

    Constants that nothing reads go, too.
    """
    graph = _without_rounding_again(_without_limits(graph))
    used = {name for node in graph.nodes for name in node.inputs}
    tensors = {name: value for name, value in graph.tensors.items() if name in used}
    return replace(graph, tensors=tensors)


def _without_limits(graph: Graph) -> Graph:
    producers, readers = graph.producers(), graph.readers()
    nodes = []
    removed: set[str] = set()
    for node in graph.nodes:
        if steps := _steps(node, graph):
            value = node.inputs[0]
            while readers[value] == 1 and _is_within(steps, producers.get(value), graph):
                removed.add(value)
                value = producers[value].inputs[0]
            node = replace(node, inputs=[value, *node.inputs[1:]])
        nodes.append(node)
    return replace(graph, nodes=[node for node in nodes if not removed.intersection(node.outputs)])


def _without_rounding_again(graph: Graph) -> Graph:
    nodes: list[Node] = []
    names: dict[str, str] = {}
    made: dict[str, _Steps] = {}
    for node in graph.nodes:
        node = replace(node, inputs=[names.get(name, name) for name in node.inputs])
        steps = _steps(node, graph)
        if steps is not None and made.get(node.inputs[0]) == steps:
            names[node.outputs[0]] = node.inputs[0]
            continue
        steps = steps or _chosen(node, made)
        if steps is not None:
            made[node.outputs[0]] = steps
        nodes.append(node)
    return replace(graph, nodes=nodes, output=names.get(graph.output, graph.output))


def _steps(node: Node, graph: Graph) -> _Steps | None:
    """Return what *node* makes of numbers, if it is a FakeQuantize that changes none of them again; else None."""
    if node.operator != "FakeQuantize":
        return None
    _, scale, zero, low, high = node.inputs
    point = graph.tensors[zero].item() if zero else 0
    number = {name: np.float32(graph.tensors[name].item()) for name in (scale, low, high)}
    steps = _Steps(number[scale], np.float32(number[low] - point), np.float32(number[high] - point))
    is_exact = -_MOST_STEPS < steps.low <= steps.high < _MOST_STEPS
    return steps if steps.scale > 0 and is_exact else None


def _chosen(node: Node, made: dict[str, _Steps]) -> _Steps | None:
    """Return the steps of the output of *node*, if it only chooses among numbers that have steps; else None."""
    of_inputs = [made.get(name) for name in node.inputs]
    match node.operator:
        case "Concat" if len(set(of_inputs)) == 1:
            return of_inputs[0]
        case "MaxPool" if len(node.outputs) == 1 and _sees_a_number(node):
            return of_inputs[0]
        case operator if operator in _CHOOSING:
            return of_inputs[0]
    return None


def _sees_a_number(pool: Node) -> bool:
    """Return whether no window of the MaxPool *pool* can be all in the padding, where the maximum is -infinity."""
    sizes, pads, dilations = (
        _numbers(pool, name) for name in ("kernel_shape", "pads", "dilations")
    )
    return all(step == 1 for step in dilations) and all(
        pad < size for pad, size in zip(pads, [*sizes, *sizes], strict=True)
    )


def _numbers(node: Node, name: str) -> Sequence[float]:
    value = node.attributes[name]
    assert not isinstance(value, (int, float, str))
    return value


def _is_within(steps: _Steps, node: Node | None, graph: Graph) -> bool:
    """Return whether *node* is a Relu or Clip that limits only what *steps* does, too."""
    if node is None or node.operator not in ("Relu", "Clip"):
        return False
    low, high = [*node.inputs[1:], "", ""][:2]
    lowest = _limit(low, -np.inf if node.operator == "Clip" else 0.0, graph)
    highest = _limit(high, np.inf, graph)
    if lowest is None or highest is None:
        return False
    with np.errstate(over="ignore"):
        low_step, high_step = np.rint(lowest / steps.scale), np.rint(highest / steps.scale)
    return bool(low_step <= steps.low and high_step >= steps.high)


def _limit(name: str, absent: float, graph: Graph) -> np.float32 | None:
    """Return the constant *name*, or *absent* if it has no name; None if it is not one number."""
    if not name:
        return np.float32(absent)
    tensor = graph.tensors.get(name)
    return np.float32(tensor.item()) if tensor is not None and tensor.size == 1 else None
