"""Make models that were exported for a fixed batch size, as many exporters do, take any batch size."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from fluxdrop.predict.compiler.shapes import value_shape, with_inferred_shapes
from fluxdrop.predict.compiler.weights import restore, save, structure
from fluxdrop.predict.engine import label_rows, run_in_batches
from fluxdrop.predict.onnx_session import open_session
from fluxdrop.telemetry import import_onnxruntime

_PICTURES = 3
_SEED = 20
_TOLERANCE = 1e-5
_BATCH_SHAPE = "fluxdrop/batch"


def with_dynamic_batch(model: ModelProto) -> ModelProto:
    """Change *model* so that it takes batches of any size, if that is possible, and return it.

    *model* has one input and is in its normal form. It is not changed when its batch
    dimension is dynamic already, and when the changed model would differ: when onnxruntime's output
    for three noise pictures in one batch is not what *model* returns in batches of its own size.
    """
    (declared,) = model.graph.input
    size, *picture = value_shape(declared) or (-1,)
    if size < 1:
        return model
    noise = np.random.default_rng(_SEED).standard_normal((_PICTURES, *picture))
    kept = structure(model)
    name = declared.name
    same = False
    # onnxruntime's exceptions share no class below Exception.
    with contextlib.suppress(Exception):
        expected = run_in_batches(size, _runner(model, name), noise.astype(np.float32))
        _free_batch(model, name, size)
        found = _runner(model, name)(noise.astype(np.float32))
        tolerance = _TOLERANCE * float(np.abs(expected).max(initial=0.0))
        same = expected.shape == found.shape and np.allclose(
            expected, found, rtol=0, atol=tolerance
        )
    if not same:
        restore(model, kept)
    return model


def _free_batch(model: ModelProto, name: str, size: int) -> None:
    """Change *model* so that its input *name*, and what is computed from it, has a dynamic first dimension."""
    graph = model.graph
    shapes = {item.name: value_shape(item) for item in (*graph.value_info, *graph.output)}
    constants = {item.name: item for item in graph.initializer}
    # These state the fixed size; `with_inferred_shapes` infers them again.
    del graph.value_info[:]
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    for given in graph.input:
        if given.name == name:
            given.type.tensor_type.shape.dim[0].dim_param = "batch"
    nodes: list[NodeProto] = []
    repeats = False
    for node in graph.node:
        shape = shapes.get(node.output[0])
        if node.op_type in ("Reshape", "Expand") and shape and min(shape) > 0:
            # The first dimension: Reshape infers it from the rest (-1), Expand keeps it (1). At the fixed batch
            # size both return what they did before.
            first = -1 if node.op_type == "Reshape" else 1
            sizes = np.array([first, *shape[1:]])
            node.input[1] = _constant(graph, f"{_BATCH_SHAPE}/{node.output[0]}", sizes)
        elif node.op_type == "Concat":
            for index, part in enumerate(node.input):
                if part in constants and list(constants[part].dims[:1]) == [size]:
                    result = f"{_BATCH_SHAPE}/{node.output[0]}/{index}"
                    nodes += _repeat_per_picture(
                        graph, numpy_helper.to_array(constants[part]), result
                    )
                    node.input[index] = result
                    repeats = True
        nodes.append(node)
    del graph.node[:]
    if repeats:
        graph.node.append(helper.make_node("Shape", [name], [_BATCH_SHAPE], start=0, end=1))
    graph.node.extend(nodes)
    with_inferred_shapes(model)


def _repeat_per_picture(graph: GraphProto, part: NDArray[Any], result: str) -> list[NodeProto]:
    """Return nodes that compute *result*: the first row of the constant *part*, repeated for each picture.

    Such a constant is the same for all pictures, for example a class token.
    """
    one = _constant(graph, f"{result}/one", part[:1])
    rest = _constant(graph, f"{result}/rest", np.array(part.shape[1:]))
    return [
        helper.make_node("Concat", [_BATCH_SHAPE, rest], [f"{result}/shape"], axis=0),
        helper.make_node("Expand", [one, f"{result}/shape"], [result]),
    ]


def _constant(graph: GraphProto, name: str, value: NDArray[Any]) -> str:
    """Add the initializer *name* to *graph* and return its name."""
    graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _runner(model: ModelProto, name: str) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return a function that runs *model*, whose input is called *name*, with onnxruntime."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory(prefix="fluxdrop-") as folder:
        path = save(model, Path(folder))
        session = open_session(path, options)

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        (output,) = session.run(None, {name: batch})
        return label_rows(np.asarray(output, dtype=np.float32), len(batch))

    return run
