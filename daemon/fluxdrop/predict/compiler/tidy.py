"""Bring a model that was just read into the order that today's ONNX asks for."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import TopologicalSorter

from onnx import GraphProto, ModelProto, NodeProto

_FIRST_IR_WITH_CONSTANTS = 4


def tidy(model: ModelProto) -> None:
    """Change *model* in place: only pictures are inputs, and each node comes after those that it reads.

    Up to IR version 3 all weights are listed as inputs as well. Converters of float types append
    their casts to the end of the graph.

    Raises:
        ValueError: When the nodes depend on each other in a circle.
    """
    graph = model.graph
    constants = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in constants]
    if len(inputs) < len(graph.input):
        del graph.input[:]
        graph.input.extend(inputs)
        model.ir_version = max(model.ir_version, _FIRST_IR_WITH_CONSTANTS)
    _sort_nodes(graph)


def names_read(node: NodeProto) -> set[str]:
    """Return the names that *node* reads, including those in its subgraphs."""
    graphs = [graph for item in node.attribute for graph in (item.g, *item.graphs)]
    return set(node.input).union(*(names_read(inner) for graph in graphs for inner in graph.node))


def dependencies(nodes: Iterable[NodeProto], output: str) -> list[NodeProto]:
    """Return those of *nodes* that *output* depends on."""
    names = {output}
    kept = []
    for node in reversed(list(nodes)):
        if names.intersection(node.output):
            names |= names_read(node)
            kept.append(node)
    return kept[::-1]


def _sort_nodes(graph: GraphProto) -> None:
    """Sort the nodes of *graph*, unless they are sorted."""
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    needed = [
        {producers[name] for name in names_read(node) if name in producers} for node in graph.node
    ]
    if all(max(earlier, default=-1) < index for index, earlier in enumerate(needed)):
        return
    nodes = [
        graph.node[index] for index in TopologicalSorter(dict(enumerate(needed))).static_order()
    ]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
