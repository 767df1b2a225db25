"""Patterns of nodes that become one function of the worker."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fluxdrop.predict.compiler.fusion import fuse
from fluxdrop.predict.compiler.graph_file import Attribute, Graph, Node


def graph(*nodes: Node, output: str = "y", **tensors: NDArray[np.float32]) -> Graph:
    """A graph of *nodes* over the input ``x`` with the constants *tensors*."""
    return Graph("x", (-1, 4), output, list(nodes), tensors)


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


def ones(*shape: int) -> NDArray[np.float32]:
    """A tensor of ones."""
    return np.ones(shape, np.float32)


@pytest.mark.parametrize("terms", [("m", "b"), ("b", "m")])
def test_linear(terms: tuple[str, str]) -> None:
    """A product by a constant matrix and the sum with a constant vector are one Gemm, with the sum's name."""
    nodes = [Node("MatMul", ["x", "w"], ["m"], "product"), Node("Add", terms, ["y"], "sum")]

    found = fuse(graph(*nodes, w=ones(4, 3), b=ones(3)))

    attributes: dict[str, Attribute] = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    assert [Node("Gemm", ["x", "w", "b"], ["y"], "sum", attributes)] == found.nodes


@pytest.mark.parametrize(
    ("weight", "bias", "rest"),
    [
        (ones(4, 3), ones(1, 1, 3), []),
        (ones(4, 3), ones(1), []),
        (ones(2, 4, 3), ones(3), []),
        (ones(4, 3), ones(3), [Node("Add", ["s", "m"], ["y"], "again")]),
    ],
    ids=["more dimensions", "one number", "a matrix each", "read twice"],
)
def test_no_linear(
    weight: NDArray[np.float32], bias: NDArray[np.float32], rest: list[Node]
) -> None:
    """A sum stays that a Gemm would compute differently, or whose product is read elsewhere, too."""
    nodes = [
        Node("MatMul", ["x", "w"], ["m"], "product"),
        Node("Add", ["m", "b"], ["s" if rest else "y"], "sum"),
        *rest,
    ]

    assert nodes == fuse(graph(*nodes, w=weight, b=bias)).nodes


STEPS = {"s": 0.5, "z": 3.0, "l": -128.0, "h": 127.0}


def rounding(zero: bool = True) -> list[Node]:
    """The nodes that quantise ``x`` and dequantise it again, with and without a zero point."""
    nodes = [Node("Div", ["x", "s"], ["d"], "1"), Node("Round", ["d"], ["r"], "2")]
    if zero:
        nodes.append(Node("Add", ["r", "z"], ["a"], "3"))
    nodes.append(Node("Clip", ["a" if zero else "r", "l", "h"], ["c"], "4"))
    if zero:
        nodes.append(Node("Sub", ["c", "z"], ["u"], "5"))
    return [*nodes, Node("Mul", ["u" if zero else "c", "s"], ["y"], "6")]


def numbers(**others: object) -> dict[str, NDArray[np.float32]]:
    """The constants of `rounding`, with *others* in place of some."""
    return {name: np.array(value, np.float32) for name, value in {**STEPS, **others}.items()}


@pytest.mark.parametrize("zero", [True, False])
def test_fake_quantise(zero: bool) -> None:
    """Rounding to the steps of a quantised tensor is one node, which reads the constants that the chain did."""
    found = fuse(Graph("x", (-1, 4), "y", rounding(zero), numbers()))

    inputs = ["x", "s", "z" if zero else "", "l", "h"]
    assert [Node("FakeQuantize", inputs, ["y"], "6")] == found.nodes
    assert {name for name in inputs[1:] if name} == set(found.tensors)


def test_other_steps() -> None:
    """The chain stays with a scale for each channel, another scale at its end, or a value that is read elsewhere."""
    channels = Graph("x", (-1, 4), "y", rounding(), numbers(s=[0.5, 0.25]))
    other = [*rounding()[:-1], Node("Mul", ["u", "s2"], ["y"], "6")]
    another = Graph("x", (-1, 4), "y", other, numbers(s2=0.25))
    again = [*rounding(), Node("Add", ["y", "c"], ["w"], "7")]
    read_twice = Graph("x", (-1, 4), "w", again, numbers())

    for kept in (channels, another, read_twice):
        assert kept.nodes == fuse(kept).nodes


def concat(inputs: list[str], output: str, axis: int = 1) -> Node:
    """A node that joins *inputs* along *axis*."""
    return Node("Concat", inputs, [output], output, {"axis": axis})


def test_concats() -> None:
    """What is joined again and again is joined once; a part of it that something else reads stays, too."""
    relu = Node("Relu", ["q"], ["b"], "2")
    found = fuse(
        graph(
            Node("Relu", ["x"], ["a"], "1"),
            concat(["x", "a"], "p"),
            concat(["p", "x"], "q"),
            relu,
            concat(["q", "b"], "y"),
        )
    )

    assert [concat(["x", "a", "x"], "q"), relu, concat(["x", "a", "x", "b"], "y")] == found.nodes[
        1:
    ]


def test_other_concats() -> None:
    """Concats stay that join along another axis, or so many values that the model would have no end of them."""
    other = [concat(["x", "x"], "p", axis=2), concat(["p", "x"], "y")]
    doubled = [concat([str(i), str(i)], str(i + 1)) for i in range(30)]

    assert other == fuse(graph(*other)).nodes
    found = fuse(graph(Node("Relu", ["x"], ["0"], "0"), *doubled, output="30")).nodes
    assert max(len(node.inputs) for node in found) == 256
