"""Compare what the worker computes with onnxruntime: for a whole model, and node by node."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.compiler.graph_file import Graph, Node
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.tensor import to_tensor
from fluxdrop.processes.child import CallFailed
from fluxdrop.telemetry import import_onnxruntime

TOLERANCE = 1e-4
"""The largest `relative_difference` at which two outputs count as equal."""

_SEED = 20
_NOISE_PICTURES = 3
_TINY = float(np.finfo(np.float32).tiny)


class Difference(NamedTuple):
    """How much a node's output differs from onnxruntime's."""

    node: str
    operator: str
    relative: float
    """The `relative_difference` of the two."""


def samples(bundle: Bundle, settings: Settings) -> NDArray[np.float32]:
    """Return the tensors to compare with: the pictures in the bundle's samples/, else seeded noise.

    Raises:
        FluxdropError: Kind ``picture``, when a file in samples/ cannot be decoded.
    """
    spec = bundle.spec.input
    pictures = sorted(path for path in Path(bundle.folder, "samples").glob("*") if path.is_file())
    if not pictures:
        noise = np.random.default_rng(_SEED).standard_normal((_NOISE_PICTURES, *spec.shape[1:]))
        return noise.astype(np.float32)
    tensors = []
    for path in pictures:
        image, _ = open_picture(
            path, max_file_bytes=settings.max_file_bytes, max_pixels=settings.max_pixels
        )
        tensors.append(to_tensor(image, spec))
    return np.concatenate(tensors)


def relative_difference(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Return the largest absolute difference divided by the largest absolute value of *expected*.

    It is inf when the shapes differ or *found* is not finite.
    """
    if expected.shape != found.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    scale = max(float(np.abs(expected).max()), _TINY)
    worst = float(np.abs(expected - found).max()) / scale
    return worst if np.isfinite(worst) else float("inf")


def by_node(
    bundle: Bundle,
    batch: NDArray[np.float32],
    run: Callable[[bytes, NDArray[np.float32]], NDArray[np.float32]],
) -> Iterator[Difference]:
    """Yield the difference of each output of each node, in order of execution.

    Each node is run with all nodes before it, so differences accumulate: the first node whose
    difference is too large is the cause.

    Args:
        bundle: The model; it has to be of ONNX.
        batch: Tensors [N, ...] to run it on.
        run: Runs a graph file on a batch and returns the output.

    Raises:
        FluxdropError: Kind ``model``, when the model cannot be compiled or run.
    """
    import onnx

    from fluxdrop.predict.compiler.compile import normal_model, translate_errors
    from fluxdrop.predict.compiler.graph_file import fixed_batch
    from fluxdrop.predict.compiler.lower import lower

    with translate_errors(bundle):
        model = normal_model(bundle)
        graph = lower(model)
    size = fixed_batch(graph.to_bytes())
    if size is not None:
        batch = np.resize(batch, (size, *batch.shape[1:]))
    outputs = [(node, name) for node in graph.nodes for name in node.outputs if name]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for _, name in outputs)
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    expected: list[NDArray[Any]] = session.run(None, {graph.input: batch})
    for (node, name), wanted in zip(outputs, expected, strict=True):
        try:
            found = run(_subgraph(graph, name).to_bytes(), batch)
        except CallFailed as error:
            raise FluxdropError(f"{bundle.onnx}: {error.message}", kind="model") from error
        yield Difference(
            node.name, node.operator, relative_difference(wanted.astype(np.float32), found)
        )


def _subgraph(graph: Graph, output: str) -> Graph:
    """Return the part of *graph* that computes *output*."""
    wanted = {output}
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if wanted & set(node.outputs):
            nodes.insert(0, node)
            wanted.update(node.inputs)
    tensors = {name: value for name, value in graph.tensors.items() if name in wanted}
    return dataclasses.replace(graph, output=output, nodes=nodes, tensors=tensors)
