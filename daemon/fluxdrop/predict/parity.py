"""Does the worker compute what onnxruntime computes? For a whole model, and node by node."""

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

TOLERANCE = 1e-4
"""The largest difference, relative to the largest number of an output, that counts as the same."""

_SEED = 20
_NOISE_PICTURES = 3
_TINY = float(np.finfo(np.float32).tiny)


class Difference(NamedTuple):
    """How far a node's output is off: *relative* to the largest number in it."""

    node: str
    operator: str
    relative: float


def samples(bundle: Bundle, settings: Settings) -> NDArray[np.float32]:
    """What to compare with: the pictures in the bundle's samples/, else seeded noise."""
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


def relative(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The largest difference, divided by the largest absolute number expected; inf for another shape."""
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
    """How far each output of each node is off, in order; *run* is given a graph file and a batch.

    Each node's graph is the model up to it, so a difference is that of all nodes before it, too:
    the first one that is too large names the culprit.
    """
    import onnx

    from fluxdrop.predict.compiler.compile import normal_model, refusing
    from fluxdrop.predict.compiler.graph_file import fixed_batch
    from fluxdrop.predict.compiler.lower import lower
    from fluxdrop.predict.ort import ort

    with refusing(bundle):
        model = normal_model(bundle)
        graph = lower(model)
    size = fixed_batch(graph.to_bytes())
    if size is not None:
        batch = np.resize(batch, (size, *batch.shape[1:]))
    outputs = [(node, name) for node in graph.nodes for name in node.outputs if name]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for _, name in outputs)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    expected: list[NDArray[Any]] = session.run(None, {graph.input: batch})
    for (node, name), wanted in zip(outputs, expected, strict=True):
        try:
            found = run(_up_to(graph, name).to_bytes(), batch)
        except CallFailed as error:
            raise FluxdropError(f"{bundle.onnx}: {error.message}", kind="model") from error
        yield Difference(node.name, node.operator, relative(wanted.astype(np.float32), found))


def _up_to(graph: Graph, output: str) -> Graph:
    wanted = {output}
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if wanted & set(node.outputs):
            nodes.insert(0, node)
            wanted.update(node.inputs)
    tensors = {name: value for name, value in graph.tensors.items() if name in wanted}
    return dataclasses.replace(graph, output=output, nodes=nodes, tensors=tensors)
