"""Patterns of nodes that become one function of the worker."""

from __future__ import annotations

import pytest

from fluxdrop.predict.compiler.fusion import fuse
from fluxdrop.predict.compiler.graph_file import Graph, Node


def graph(*nodes: Node, output: str = "y") -> Graph:
    """A graph of *nodes* over the input ``x``."""
    return Graph("x", (-1, 4), output, list(nodes), {})


@pytest.mark.parametrize("factors", [("x", "s"), ("s", "x")])
def test_silu(factors: tuple[str, str]) -> None:
    """A value times its own sigmoid is one Swish, in either order, with the product's name."""
    found = fuse(
        graph(Node("Sigmoid", ["x"], ["s"], "gate"), Node("Mul", factors, ["y"], "product"))
    )

    assert [Node("Swish", ["x"], ["y"], "product", {"alpha": 1.0})] == found.nodes


@pytest.mark.parametrize(
    "nodes",
    [
        [Node("Sigmoid", ["x"], ["s"], "a"), Node("Mul", ["s", "s"], ["y"], "b")],
        [
            Node("Sigmoid", ["x"], ["s"], "a"),
            Node("Relu", ["x"], ["r"], "b"),
            Node("Mul", ["r", "s"], ["y"], "c"),
        ],
        [
            Node("Sigmoid", ["x"], ["s"], "a"),
            Node("Mul", ["x", "s"], ["m"], "b"),
            Node("Add", ["m", "s"], ["y"], "c"),
        ],
    ],
    ids=["its square", "of another value", "read twice"],
)
def test_no_silu(nodes: list[Node]) -> None:
    """A sigmoid stays that multiplies something else, or that is read elsewhere, too."""
    found = fuse(graph(*nodes))

    assert nodes == found.nodes


def test_sigmoid_is_the_answer() -> None:
    """A sigmoid that is the graph's output stays."""
    nodes = [Node("Sigmoid", ["x"], ["s"], "a"), Node("Mul", ["x", "s"], ["y"], "b")]

    assert nodes == fuse(graph(*nodes, output="s")).nodes
