"""Models made node by node, their bundles, and a reader of graph files of the tests' own (docs/protocol.md)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle, load_bundle
from fluxdrop.predict.compiler.compile import compile_bundle

TOML = 'labels = ["a", "b"]\n[input]\nsize = [{width}, {height}]\nmode = "{mode}"\n'


@dataclass
class Parsed:
    """What stands in a graph file."""

    input: tuple[str, str, list[int]] = ("", "", [])
    output: str = ""
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    nodes: list[dict[str, Any]] = field(default_factory=list)


def parse(data: bytes) -> Parsed:
    magic, version, zero, length = struct.unpack_from("<8sIIQ", data)
    assert (b"FLUXDROP", 1, 0) == (magic, version, zero)
    header = data[24 : 24 + length].decode("ascii")
    start = -(-(24 + length) // 64) * 64
    assert not data[24 + length : start].strip(b"\0")
    assert header.endswith("\n")
    parsed = Parsed()
    for line in header.splitlines():
        verb, *fields = line.split(" ")
        if verb == "input":
            name, kind, shape = fields
            parsed.input = (unquote(name), kind, [int(size) for size in shape.split(",")])
        elif verb == "tensor":
            name, kind, shape, offset = fields
            sizes = [] if shape == "-" else [int(size) for size in shape.split(",")]
            assert int(offset) % 64 == 0
            parsed.tensors[unquote(name)] = np.frombuffer(
                data,
                {"float32": "<f4", "int64": "<i8"}[kind],
                int(np.prod(sizes, dtype=int)),
                start + int(offset),
            ).reshape(sizes)
        elif verb == "node":
            operator, *pairs = fields
            values = {key: value.split(",") for key, value in (pair.split("=") for pair in pairs)}
            assert ["in", "out", "name"] == list(values)[:3]
            words = {key: [unquote(word) for word in value] for key, value in values.items()}
            parsed.nodes.append({"operator": operator, **words})
        else:
            assert verb == "output"
            (parsed.output,) = map(unquote, fields)
    return parsed


def bundle_of(
    folder: Path, model: ModelProto | bytes, *, size: Sequence[int] = (1, 6, 8)
) -> Bundle:
    """A bundle with *model*, whose input is C x H x W."""
    channels, height, width = size
    toml = TOML.format(width=width, height=height, mode={1: "L", 3: "RGB"}[channels])
    (folder / "model.toml").write_text(toml)
    data = model if isinstance(model, bytes) else model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    return load_bundle(str(folder))


def model_of(
    *nodes: NodeProto,
    constants: dict[str, NDArray[Any]] | None = None,
    shape: Sequence[int | str | None] = ("N", 1, 6, 8),
    opset: int = 17,
    input_type: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("y",),
    inputs: Sequence[str] = ("x",),
) -> ModelProto:
    is_flat = any(made.op_type in ("Flatten", "Reshape") for made in nodes)
    result = [f"size {n}" for n in range(2 if is_flat else 4)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, input_type, shape) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, result) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(operator: str, *inputs: str, output: str = "y", **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs or ["x"], [output], **attributes)


def compile_model(folder: Path, model: ModelProto, **options: Any) -> Parsed:
    return parse(compile_bundle(bundle_of(folder, model, **options)).to_bytes())


def attributes(parsed: Parsed) -> dict[str, str]:
    """The attributes of the only node."""
    (only,) = parsed.nodes
    rest = {
        key: value for key, value in only.items() if key not in ("operator", "in", "out", "name")
    }
    return {key: ",".join(value) for key, value in rest.items()}


def refusal(bundle: Bundle) -> FluxdropError:
    with pytest.raises(FluxdropError) as caught:
        compile_bundle(bundle)
    assert "model" == caught.value.kind
    assert str(bundle.onnx) in caught.value.message
    return caught.value
