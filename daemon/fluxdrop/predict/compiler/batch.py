"""Models that were exported for batches of one size, as many exporters do, made to take any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from fluxdrop.predict.compiler.source import inferred, value_shape
from fluxdrop.predict.engine import in_batches_of

_PICTURES = 3
_SEED = 20
_CLOSE = 1e-5
_BATCH = "fluxdrop/batch"


def with_free_batch(model: ModelProto) -> ModelProto:
    """*model*, which has one input and is in its normal form, for batches of any size.

    That is *model* itself where it takes any already, and where onnxruntime's answer to three
    pictures of noise at once is another than in batches of the size that *model* was exported for.
    """
    constants = {item.name for item in model.graph.initializer}
    (declared,) = [item for item in model.graph.input if item.name not in constants]
    size, *picture = value_shape(declared) or (-1,)
    if size < 1:
        return model
    noise = np.random.default_rng(_SEED).standard_normal((_PICTURES, *picture))
    try:
        freed = _freed(model, declared.name, size)
        expected = in_batches_of(size, _runner(model, declared.name), noise.astype(np.float32))
        found = _runner(freed, declared.name)(noise.astype(np.float32))
    except Exception:  # onnxruntime's exceptions share no class below Exception
        return model
    off = _CLOSE * float(np.abs(expected).max(initial=0.0))
    same = expected.shape == found.shape and np.allclose(expected, found, rtol=0, atol=off)
    return freed if same else model


def _freed(model: ModelProto, name: str, size: int) -> ModelProto:
    """*model* with a free first dimension of its input *name*, and of the shapes made of that."""
    changed = ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    shapes = {item.name: value_shape(item) for item in (*graph.value_info, *graph.output)}
    constants = {item.name: item for item in graph.initializer}
    # These speak of the one size, and are inferred again.
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
            # What is left over; and for Expand, as much as there is. Both are what it was at the one size.
            first = -1 if node.op_type == "Reshape" else 1
            sizes = np.array([first, *shape[1:]])
            node.input[1] = _constant(graph, f"{_BATCH}/{node.output[0]}", sizes)
        elif node.op_type == "Concat":
            for index, part in enumerate(node.input):
                if part in constants and list(constants[part].dims[:1]) == [size]:
                    made = f"{_BATCH}/{node.output[0]}/{index}"
                    nodes += _repeated(graph, numpy_helper.to_array(constants[part]), made)
                    node.input[index] = made
                    repeats = True
        nodes.append(node)
    del graph.node[:]
    if repeats:
        graph.node.append(helper.make_node("Shape", [name], [_BATCH], start=0, end=1))
    graph.node.extend(nodes)
    return inferred(changed)


def _repeated(graph: GraphProto, part: NDArray[Any], made: str) -> list[NodeProto]:
    """Nodes that make *made* of the constant *part*, which has the same for each picture, as a class token."""
    one = _constant(graph, f"{made}/one", part[:1])
    rest = _constant(graph, f"{made}/rest", np.array(part.shape[1:]))
    return [
        helper.make_node("Concat", [_BATCH, rest], [f"{made}/shape"], axis=0),
        helper.make_node("Expand", [one, f"{made}/shape"], [made]),
    ]


def _constant(graph: GraphProto, name: str, value: NDArray[Any]) -> str:
    graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _runner(model: ModelProto, name: str) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    from fluxdrop.predict.ort import ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda batch: np.asarray(session.run(None, {name: batch})[0], dtype=np.float32)
