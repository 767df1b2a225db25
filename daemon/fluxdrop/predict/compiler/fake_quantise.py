"""Fuse the nodes that round a value to the steps of a quantised tensor and make a real number of it again.

`quantised` writes a QuantizeLinear and the DequantizeLinear after it as Div, Round, Add, Clip, Sub and Mul. Each is a
pass through memory; together they are one function of a number, which the worker applies in the layer before them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from fluxdrop.predict.compiler.graph_file import Graph, Node


def fuse_fake_quantise(graph: Graph) -> Graph:
    """Return *graph* with each such chain of nodes replaced by one FakeQuantize, which computes the same to the bit.

    FakeQuantize is an operator of the worker: ``(clip(round(x / scale) + zero, low, high) - zero) * scale``, with 0
    for -0. Its inputs are x, scale, zero, low and high; zero is absent where it is 0. Chains stay that have more than
    one number for one of these, as a scale for each channel, and those of which anything else reads a value in between.
    """
    producers, readers = graph.producers(), graph.readers()
    nodes = []
    fused: set[str] = set()
    for node in graph.nodes:
        chain = _chain_above(node, producers, readers)
        inputs = None if chain is None else _inputs(chain, graph)
        if chain is not None and inputs is not None:
            fused.update(link.outputs[0] for link in chain[1:])
            node = replace(node, operator="FakeQuantize", inputs=inputs, attributes={})
        nodes.append(node)
    return replace(graph, nodes=[node for node in nodes if not fused.intersection(node.outputs)])


_CHAINS = (
    ("Mul", "Sub", "Clip", "Add", "Round", "Div"),
    ("Mul", "Clip", "Round", "Div"),
)
"""From the last node to the first: with a zero point, and without one."""


def _chain_above(
    node: Node, producers: dict[str, Node], readers: Counter[str]
) -> list[Node] | None:
    """Return the nodes of one of `_CHAINS` that ends in *node*, the last first; None if there is none."""
    chain = [node]
    for operators in _CHAINS:
        chain = [node]
        while len(chain) < len(operators) and chain[-1].operator == operators[len(chain) - 1]:
            above = chain[-1].inputs[0]
            if above not in producers or readers[above] != 1:
                break
            chain.append(producers[above])
        if [link.operator for link in chain] == list(operators):
            return chain
    return None


def _inputs(chain: list[Node], graph: Graph) -> list[str] | None:
    """Return the inputs of the FakeQuantize that computes what *chain* does; None if none does."""
    links = {link.operator: link.inputs for link in chain}
    pairs = [("Mul", "Div"), ("Sub", "Add")] if "Sub" in links else [("Mul", "Div")]
    for last, first in pairs:
        if not _are_same_number(links[last][1], links[first][1], graph):
            return None
    x, scale = links["Div"]
    bounds = links["Clip"][1:]
    zero = links["Add"][1] if "Add" in links else ""
    if len(bounds) != 2 or not all(_are_same_number(name, name, graph) for name in bounds):
        return None
    return [x, scale, zero, *bounds]


def _are_same_number(first: str, second: str, graph: Graph) -> bool:
    """Return whether both names are constants of the same one float32 number, which adds no dimension to a value."""
    one, other = graph.tensors.get(first), graph.tensors.get(second)
    return (
        one is not None
        and other is not None
        and one.dtype == other.dtype == np.float32
        and one.size == other.size == 1
        and max(one.ndim, other.ndim) <= 1
        and one.item() == other.item()
    )
