"""Operator fusion: replace patterns of nodes for which the worker has one function.

The worker can apply that function within the preceding layer. Exporters write SiLU as ``x * Sigmoid(x)``, which
takes two passes through memory; in an EfficientNet they cost as much as the convolution before them. They write
the linear layers of a transformer as a product and a sum, and a GELU after them. In a DenseNet, each layer's output is
joined with all those before it, which copies them again and again.
"""

from __future__ import annotations

from dataclasses import replace

from fluxdrop.predict.compiler.fake_quantise import fuse_fake_quantise
from fluxdrop.predict.compiler.graph_file import Graph, Node
from fluxdrop.predict.compiler.needless import remove_needless

_MOST_JOINED = 256
"""The most inputs of a Concat that `fuse` makes; what is joined with itself again and again would have any number."""


def fuse(graph: Graph) -> Graph:
    """Return *graph* with patterns of nodes replaced by one node that computes the same.

    - A product of a value and its own sigmoid becomes a Swish.
    - A MatMul by a constant matrix and the addition of a constant vector, as exporters write a linear
      layer of more than two dimensions, become a Gemm. The worker's takes any number of dimensions.
    - A Concat of what other Concats along the same axis join becomes one of all their inputs; those go that nothing
      else reads.
    - What rounds a value to the steps of a quantised tensor becomes a FakeQuantize (`fuse_fake_quantise`). What such
      nodes make needless is removed (`remove_needless`).

    The first node of a pattern stays if anything else reads its output.
    """
    graph = _join_concats(remove_needless(fuse_fake_quantise(graph)))
    readers = graph.readers()
    read_once = {
        node.outputs[0]: node
        for node in graph.nodes
        if node.operator in ("Sigmoid", "MatMul") and readers[node.outputs[0]] == 1
    }
    nodes = []
    fused = set()
    for node in graph.nodes:
        gate, product = _own_sigmoid(node, read_once), _product_below(node, read_once, graph)
        if gate is not None:
            fused.add(gate.outputs[0])
            node = replace(node, operator="Swish", inputs=gate.inputs, attributes={"alpha": 1.0})
        elif product is not None:
            fused.add(product.outputs[0])
            bias = next(name for name in node.inputs if name != product.outputs[0])
            node = replace(
                node,
                operator="Gemm",
                inputs=[*product.inputs, bias],
                attributes={"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0},
            )
        nodes.append(node)
    return replace(graph, nodes=[node for node in nodes if not fused.intersection(node.outputs)])


def _join_concats(graph: Graph) -> Graph:
    """Return *graph* with each Concat reading what the Concats before it along the same axis do."""
    joined: dict[str, Node] = {}
    nodes = []
    for node in graph.nodes:
        if node.operator == "Concat":
            inputs: list[str] = []
            for name in node.inputs:
                inner = joined.get(name)
                is_same = inner is not None and inner.attributes == node.attributes
                inputs += inner.inputs if inner is not None and is_same else [name]
            if len(inputs) <= _MOST_JOINED:
                node = joined[node.outputs[0]] = replace(node, inputs=inputs)
        nodes.append(node)
    read = {name for node in nodes for name in node.inputs} | {graph.output}
    return replace(
        graph,
        nodes=[node for node in nodes if node.operator != "Concat" or node.outputs[0] in read],
    )


def _product_below(node: Node, read_once: dict[str, Node], graph: Graph) -> Node | None:
    """Return the MatMul by a constant matrix to which *node* adds a number for each column, else None."""
    if node.operator == "Add":
        for value, bias in (node.inputs, reversed(node.inputs)):
            product = read_once.get(value)
            if product is not None and product.operator == "MatMul" and bias in graph.tensors:
                weight = graph.tensors.get(product.inputs[1])
                if (
                    weight is not None
                    and weight.ndim == 2
                    and graph.tensors[bias].shape == weight.shape[1:]
                    and product.inputs[0] not in graph.tensors
                ):
                    return product
    return None


def _own_sigmoid(node: Node, read_once: dict[str, Node]) -> Node | None:
    """Return the sigmoid node if *node* multiplies a value by its own sigmoid, else None."""
    if node.operator == "Mul":
        for value, gate in (node.inputs, reversed(node.inputs)):
            sigmoid = read_once.get(gate)
            if (
                sigmoid is not None
                and sigmoid.operator == "Sigmoid"
                and [value] == list(sigmoid.inputs)
            ):
                return sigmoid
    return None
