"""Nodes that change nothing, as a value is rounded to steps before or after them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluxdrop.predict.compiler.fusion import fuse
from fluxdrop.predict.compiler.graph_file import Attribute, Graph, Node

STEPS = {"s": 0.5, "z": -128.0, "l": -128.0, "h": 127.0, "other": 0.25}


def graph(*nodes: Node, output: str = "y", **tensors: object) -> Graph:
    """A graph of *nodes* over the input ``x`` with the constants STEPS and *tensors*."""
    constants = {name: np.array(v, np.float32) for name, v in {**STEPS, **tensors}.items()}
    return Graph("x", (-1, 4), output, list(nodes), constants)


def rounded(value: str, output: str, scale: str = "s") -> Node:
    """The node that rounds *value* to steps from 0 to 255."""
    return Node("FakeQuantize", [value, scale, "z", "l", "h"], [output], output)


def pool(value: str, output: str, *, pads: int = 1, dilation: int = 1) -> Node:
    """A MaxPool of 3x3 numbers."""
    attributes: dict[str, Attribute] = {
        "kernel_shape": [3, 3],
        "pads": [pads] * 4,
        "strides": [2, 2],
        "dilations": [dilation] * 2,
    }
    return Node("MaxPool", [value], [output], output, attributes)


def joined(values: list[str], output: str) -> Node:
    """A node that joins *values*."""
    return Node("Concat", values, [output], output, {"axis": 1})


def operators(found: Graph) -> list[str]:
    """The operators of the nodes of *found*."""
    return [node.operator for node in found.nodes]


def test_rounded_before() -> None:
    """What only chooses among numbers that are rounded is not rounded again, and others read it as it is."""
    found = fuse(
        graph(
            rounded("x", "a"),
            pool("a", "b"),
            rounded("b", "c"),
            Node("Reshape", ["c", "shape"], ["d"], "d"),
            rounded("d", "e"),
            joined(["e", "c"], "f"),
            rounded("f", "g"),
            Node("Neg", ["g"], ["y"], "y"),
            shape=[-1, 4],
        )
    )

    assert ["FakeQuantize", "MaxPool", "Reshape", "Concat", "Neg"] == operators(found)
    assert [["a"], ["b", "shape"], ["d", "b"], ["f"]] == [
        list(node.inputs) for node in found.nodes[1:]
    ]
    assert {"s", "z", "l", "h", "shape"} == set(found.tensors)


def test_rounded_output() -> None:
    """If the last node changes nothing, the output is what it read."""
    found = fuse(graph(rounded("x", "a"), pool("a", "b"), rounded("b", "y")))

    assert "b" == found.output
    assert ["FakeQuantize", "MaxPool"] == operators(found)


@pytest.mark.parametrize(
    "nodes",
    [
        [rounded("x", "a"), pool("a", "b"), rounded("b", "y", "other")],
        [rounded("x", "a"), pool("a", "b", dilation=2), rounded("b", "y")],
        [rounded("x", "a"), pool("a", "b", pads=3), rounded("b", "y")],
        [rounded("x", "a"), Node("Neg", ["a"], ["b"], "b"), rounded("b", "y")],
        [rounded("x", "a"), joined(["a", "x"], "b"), rounded("b", "y")],
        [rounded("x", "a"), rounded("x", "c", "other"), joined(["a", "c"], "b"), rounded("b", "y")],
    ],
    ids=["other steps", "dilated", "padded by a window", "computed", "not rounded", "mixed"],
)
def test_rounded_again(nodes: list[Node]) -> None:
    """Numbers are rounded that may lie between these steps, or be -infinity."""
    assert nodes == fuse(graph(*nodes)).nodes


def test_many_steps_are_rounded_again() -> None:
    """With more steps than 16 bits have, a rounded number may not be the product of its step to the bit."""
    nodes = [rounded("x", "a"), pool("a", "b"), rounded("b", "y")]

    assert nodes == fuse(graph(*nodes, l=-(2.0**31), h=2.0**31)).nodes


LIMITS: dict[str, Any] = {"low": 0.0, "high": 127.5, "less": 127.3, "much_less": 6.0, "above": 0.26}


@pytest.mark.parametrize(
    "limits",
    [
        ["Relu"],
        ["Clip", "low"],
        ["Clip", "low", "high"],
        ["Clip", "low", "less"],
        ["Clip", "", "high"],
    ],
    ids=" ".join,
)
def test_limits_within(limits: list[str]) -> None:
    """A Relu or Clip goes that limits numbers no more than the rounding after it does."""
    operator, *names = limits
    found = fuse(graph(Node(operator, ["x", *names], ["a"], "a"), rounded("a", "y"), **LIMITS))

    assert [rounded("x", "y")] == found.nodes


@pytest.mark.parametrize(
    "limits", [["Clip", "low", "much_less"], ["Clip", "above"], ["Clip", "x"]], ids=" ".join
)
def test_other_limits(limits: list[str]) -> None:
    """A Clip stays that limits numbers more, or by numbers that are computed."""
    operator, *names = limits
    nodes = [Node(operator, ["x", *names], ["a"], "a"), rounded("a", "y")]

    assert nodes == fuse(graph(*nodes, **LIMITS)).nodes


def test_limits_read_elsewhere() -> None:
    """A Relu stays that something else reads, or whose limit the steps go beyond."""
    read = [Node("Relu", ["x"], ["a"], "a"), rounded("a", "b"), Node("Add", ["a", "b"], ["y"], "y")]
    signed = [Node("Relu", ["x"], ["a"], "a"), rounded("a", "y")]

    assert read == fuse(graph(*read)).nodes
    assert signed == fuse(graph(*signed, z=0.0)).nodes
