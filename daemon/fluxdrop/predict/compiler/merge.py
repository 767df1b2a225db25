"""Patterns of nodes that the worker has one function for, which it can apply in the layer before them.

Exporters write SiLU as ``x * Sigmoid(x)``: two walks through memory that cost as much as the convolution before
them in an EfficientNet.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from fluxdrop.predict.compiler.graph_file import Graph, Node


def merged(graph: Graph) -> Graph:
    """*graph* with a Swish for each product of a value with its own sigmoid."""
    readers = Counter(name for node in graph.nodes for name in node.inputs) + Counter(
        [graph.output]
    )
    sigmoids = {
        node.outputs[0]: node
        for node in graph.nodes
        if node.operator == "Sigmoid" and readers[node.outputs[0]] == 1
    }
    nodes = []
    gone = set()
    for node in graph.nodes:
        gate = _gate(node, sigmoids)
        if gate is not None:
            gone.add(gate.outputs[0])
            node = replace(node, operator="Swish", inputs=gate.inputs, attributes={"alpha": 1.0})
        nodes.append(node)
    return replace(graph, nodes=[node for node in nodes if not gone.intersection(node.outputs)])


def _gate(node: Node, sigmoids: dict[str, Node]) -> Node | None:
    """The sigmoid of the value that *node* multiplies with it."""
    if node.operator == "Mul":
        for value, gate in (node.inputs, reversed(node.inputs)):
            if gate in sigmoids and [value] == list(sigmoids[gate].inputs):
                return sigmoids[gate]
    return None
