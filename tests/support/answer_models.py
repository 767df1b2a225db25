"""Models of each kind of answer, whose numbers for a picture of one colour can be computed by hand.

Each takes the mean of the three channels of a picture of 8 x 8 pixels, and applies a linear layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from fluxdrop.predict.bundle import Bundle, load_bundle

RED = (1.0, 0.0, 0.0)
"""The mean of the channels of a red picture, which is the first row of the layer's weights."""

Rows = Sequence[Sequence[float]]


def model(
    rows: Rows,
    *tail: NodeProto,
    outputs: Mapping[str, Sequence[int | str] | None] | None = None,
    metadata: dict[str, str] | None = None,
    constants: dict[str, NDArray[Any]] | None = None,
) -> ModelProto:
    """A model whose numbers ``z`` for a red picture are the first of *rows*, and that ends in *tail*.

    Args:
        rows: The numbers for a red, a green and a blue picture.
        tail: Nodes after ``z``. Without any, the output is ``z``, else by default ``y``.
        outputs: The shapes of the outputs; that of None is a class map.
        metadata: The model's metadata.
        constants: What *tail* reads.
    """
    weights = np.array(rows, np.float32)
    count = weights.shape[1]
    head = [
        helper.make_node("GlobalAveragePool", ["x"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["z"]),
    ]
    outputs = outputs or {"y" if tail else "z": ["N", count]}
    arrays = {"w": weights, "b": np.zeros(count, np.float32), **(constants or {})}
    graph = helper.make_graph(
        [*head, *tail],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [_declared(name, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    made = helper.make_model(graph, opset_imports=domains, ir_version=8)
    helper.set_model_props(made, metadata or {})
    return made


def _declared(name: str, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    if shape is not None:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    mapped = helper.make_map_type_proto(TensorProto.STRING, value)
    return helper.make_value_info(name, helper.make_sequence_type_proto(mapped))


def node(operator: str, *inputs: str, output: str = "y", **attributes: Any) -> NodeProto:
    """A node that reads *inputs*, by default ``z``."""
    return helper.make_node(operator, inputs or ["z"], [output], **attributes)


def class_map(names: Sequence[str] | Sequence[int], probabilities: Sequence[float]) -> ModelProto:
    """A softmax with the *probabilities* for red, and a class map of it, as older exports of Custom Vision have."""
    numbers = all(isinstance(name, int) for name in names)
    key = "classlabels_int64s" if numbers else "classlabels_strings"
    labels: dict[str, Any] = {key: names}
    named = helper.make_node("ZipMap", ["p"], ["y"], domain="ai.onnx.ml", **labels)
    made = model(
        [[math.log(p) for p in probabilities], [0.0] * len(names), [0.0] * len(names)],
        node("Softmax", output="p", axis=1),
        named,
        outputs={"y": None},
    )
    if numbers:
        made.graph.output[0].type.sequence_type.elem_type.map_type.key_type = TensorProto.INT64
    return made


def sigmoid_model(*probabilities: float) -> ModelProto:
    """A sigmoid that gives these *probabilities* for a red picture, and others for green and blue ones."""
    logits = [math.log(p / (1 - p)) for p in probabilities]
    return model([logits, [1.0] * len(logits), [-2.0] * len(logits)], node("Sigmoid"))


def bundle(folder: Path, made: ModelProto, toml: str) -> Bundle:
    """The bundle of *made* in *folder*; *toml* has the keys above the input's."""
    folder.mkdir(exist_ok=True)
    onnx.save(made, folder / "model.onnx")
    (folder / "model.toml").write_text(f"{toml}\n[input]\nsize = [8, 8]\n")
    return load_bundle(str(folder))


def red_tensor() -> NDArray[np.float32]:
    """A red picture as a model's input."""
    return np.broadcast_to(np.array(RED, np.float32)[:, None, None], (1, 3, 8, 8)).copy()


def red_picture(path: Path) -> Path:
    """A red picture in the file *path*."""
    Image.new("RGB", (8, 8), (255, 0, 0)).save(path)
    return path
