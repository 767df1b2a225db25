"""Operator fusion: replace patterns of nodes for which the worker has one function.

The worker can apply that function within the preceding layer. Exporters write SiLU as ``x * Sigmoid(x)``, which
takes two passes through memory; in an EfficientNet they cost as much as the convolution before them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from fluxdrop.predict.compiler.graph_file import Graph, Node


def fuse(graph: Graph) -> Graph:
    """Return *graph* with each product of a value and its own sigmoid replaced by a Swish.

    A sigmoid that something else reads is kept.
    """
    readers = Counter(name for node in graph.nodes for name in node.inputs) + Counter(
        [graph.output]
    )
    sigmoids = {
        node.outputs[0]: node
        for node in graph.nodes
        if node.operator == "Sigmoid" and readers[node.outputs[0]] == 1
    }
    nodes = []
    fused = set()
    for node in graph.nodes:
        gate = _own_sigmoid(node, sigmoids)
        if gate is not None:
            fused.add(gate.outputs[0])
            node = replace(node, operator="Swish", inputs=gate.inputs, attributes={"alpha": 1.0})
        nodes.append(node)
    return replace(graph, nodes=[node for node in nodes if not fused.intersection(node.outputs)])


def _own_sigmoid(node: Node, sigmoids: dict[str, Node]) -> Node | None:
    """Return the sigmoid node if *node* multiplies a value by its own sigmoid, else None."""
    if node.operator == "Mul":
        for value, gate in (node.inputs, reversed(node.inputs)):
            if gate in sigmoids and [value] == list(sigmoids[gate].inputs):
                return sigmoids[gate]
    return None
