"""From ONNX to graph files, which a reader of the test's own takes apart (docs/protocol.md)."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle, load_bundle
from fluxdrop.predict.compiler.compile import compile_bundle, compiled
from fluxdrop.predict.compiler.graph_file import fixed_batch
from fluxdrop.predict.compiler.source import ExternalDataError, one_file

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
    return parse(compile_bundle(bundle_of(folder, model, **options)))


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


def test_embedded_model() -> None:
    """The embedded model is compiled whole, with each batch norm folded into the Conv before it."""
    bundle = load_bundle("round-or-angular")
    model = onnx.load(bundle.onnx)
    weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}

    parsed = parse(compile_bundle(bundle))

    assert ("float32", [-1, 1, 64, 64]) == parsed.input[1:]
    assert [item.op_type for item in model.graph.node if item.op_type != "BatchNormalization"] == [
        item["operator"] for item in parsed.nodes
    ]
    shared = weights.keys() & parsed.tensors.keys()
    assert shared
    for name in shared:
        assert np.array_equal(weights[name], parsed.tensors[name])
    known = {parsed.input[0], *parsed.tensors, "-"}
    for item in parsed.nodes:
        assert set(item["in"]) <= known
        known |= set(item["out"])
    assert parsed.output in known


def test_layout(tmp_path: Path) -> None:
    """Constants lie at multiples of 64, scalars have no dimensions, and what is not used is left out."""
    constants: dict[str, NDArray[Any]] = {
        "scalar": np.array(2.5, np.float32),
        "long": np.arange(17, dtype=np.float32).reshape(17, 1, 1),
        "unused": np.zeros(3, np.float32),
    }
    model = model_of(
        node("Mul", "x", "scalar", output="a"), node("Add", "a", "long"), constants=constants
    )

    parsed = compile_model(tmp_path, model)

    assert ["scalar", "long"] == list(parsed.tensors)
    assert [(), (17, 1, 1)] == [tensor.shape for tensor in parsed.tensors.values()]
    assert (2.5, 16.0) == (float(parsed.tensors["scalar"]), float(parsed.tensors["long"][16, 0, 0]))


@pytest.mark.parametrize("name", ["a b", "100%", "k=v,w", "/conv/é 日本", "tab\tline\n", "%20"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    """Whatever a name has in it, it comes back as it was."""
    model = model_of(
        helper.make_node("Mul", ["x", f"w {name}"], [name], name=f"node {name}"),
        node("Relu", name),
        constants={f"w {name}": np.ones(1, np.float32)},
    )

    parsed = compile_model(tmp_path, model)

    first, second = parsed.nodes
    assert (["x", f"w {name}"], [name], [f"node {name}"]) == (
        first["in"],
        first["out"],
        first["name"],
    )
    assert ([name], [f"w {name}"]) == (second["in"], list(parsed.tensors))


def test_absent_inputs_and_names(tmp_path: Path) -> None:
    """A node without a name gets one, and an optional input that is left out is a dash."""
    model = model_of(
        helper.make_node("Dropout", ["x", ""], ["y"]),
    )

    (only,) = compile_model(tmp_path, model).nodes

    assert (["x", "-"], ["Dropout_0"]) == (only["in"], only["name"])


@pytest.mark.parametrize(
    ("constant", "expected"),
    [
        (
            {"value": numpy_helper.from_array(np.array([1.5], np.float64))},
            np.array([1.5], np.float32),
        ),
        ({"value_float": 1.5}, np.float32(1.5)),
        ({"value_floats": [1.5, 2.5]}, np.array([1.5, 2.5], np.float32)),
        ({"value_int": 3}, np.int64(3)),
        ({"value_ints": [3, 4]}, np.array([3, 4], np.int64)),
        ({"value": numpy_helper.from_array(np.array([7], np.int32))}, np.array([7], np.int64)),
        (
            {"value": numpy_helper.from_array(np.array([0.5], np.float16))},
            np.array([0.5], np.float32),
        ),
    ],
)
def test_constant_nodes(tmp_path: Path, constant: dict[str, Any], expected: Any) -> None:
    """Constant nodes become constants, and all numbers float32 or int64."""
    model = model_of(helper.make_node("Constant", [], ["c"], **constant), node("Add", "x", "c"))

    parsed = compile_model(tmp_path, model)

    assert (expected.dtype, expected.tolist()) == (
        parsed.tensors["c"].dtype,
        parsed.tensors["c"].tolist(),
    )


WINDOW = {"strides": "1,1", "dilations": "1,1", "pads": "0,0,0,0"}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (node("Conv", "x", "w"), {**WINDOW, "group": "1"}),
        (
            node("Conv", "x", "w", strides=[2, 1], pads=[1, 0, 2, 3], dilations=[1, 2]),
            {"strides": "2,1", "pads": "1,0,2,3", "dilations": "1,2", "group": "1"},
        ),
        (node("Conv", "x", "w", auto_pad="VALID"), {**WINDOW, "group": "1"}),
        (
            node("MaxPool", kernel_shape=[2, 2]),
            {**WINDOW, "kernel_shape": "2,2", "ceil_mode": "0"},
        ),
        (
            node("AveragePool", kernel_shape=[2, 2], count_include_pad=1),
            {**WINDOW, "kernel_shape": "2,2", "ceil_mode": "0", "count_include_pad": "1"},
        ),
        (
            node("MaxPool", kernel_shape=[2, 4], strides=[4, 4], ceil_mode=1),
            {**WINDOW, "kernel_shape": "2,4", "strides": "4,4", "ceil_mode": "0"},
        ),
        (
            node("MaxPool", kernel_shape=[4, 4], strides=[4, 4], ceil_mode=1),
            {**WINDOW, "kernel_shape": "4,4", "strides": "4,4", "ceil_mode": "1"},
        ),
        (
            node("MaxPool", kernel_shape=[99, 9], pads=[0, 1, 0, 0], ceil_mode=1),
            {**WINDOW, "kernel_shape": "6,9", "pads": "0,1,0,0", "ceil_mode": "0"},
        ),
        (node("Flatten"), {"axis": "1"}),
        (node("Flatten", axis=-2), {"axis": "2"}),
        (node("Softmax"), {"axis": "3"}),
        (node("Softmax", axis=1), {"axis": "1"}),
        (node("LeakyRelu"), {"alpha": "0.01"}),
        (node("Elu"), {"alpha": "1.0"}),
        (node("Transpose"), {"perm": "3,2,1,0"}),
        (node("Transpose", perm=[0, 2, 3, 1]), {"perm": "0,2,3,1"}),
        (node("Concat", "x", "x", axis=-3), {"axis": "1"}),
        (node("Reshape", "x", "shape"), {"allowzero": "0"}),
        (node("Relu"), {}),
    ],
)
def test_every_attribute_is_written(
    tmp_path: Path, made: NodeProto, expected: dict[str, str]
) -> None:
    """A node has all attributes of its operator, defaults written out and axes from the front."""
    constants: dict[str, NDArray[Any]] = {
        "w": np.ones((1, 1, 3, 3), np.float32),
        "shape": np.array([0, -1], np.int64),
    }

    found = attributes(compile_model(tmp_path, model_of(made, constants=constants)))

    def numbers(values: dict[str, str]) -> dict[str, list[float]]:
        return {key: [float(word) for word in text.split(",")] for key, text in values.items()}

    assert numbers(expected).keys() <= numbers(found).keys()
    assert {key: pytest.approx(value) for key, value in numbers(expected).items()} == {
        key: value for key, value in numbers(found).items() if key in expected
    }


def written_out(
    folder: Path, operator: str, size: Sequence[int], **options: Any
) -> tuple[ModelProto, ModelProto]:
    """A model of one node with auto_pad, and the same with the pads that the compiler makes of it."""
    inputs = ["x", "w"] if operator == "Conv" else ["x"]
    kernel = options["kernel_shape"]
    weights = np.random.default_rng(1).normal(size=(1, 1, *kernel)).astype(np.float32)

    def model(**more: Any) -> ModelProto:
        made = node(operator, *inputs, **{**options, **more})
        return model_of(made, constants={"w": weights}, shape=("N", 1, *size))

    pads = attributes(compile_model(folder, model(), size=(1, *size)))["pads"]
    return model(), model(auto_pad="NOTSET", pads=[int(pad) for pad in pads.split(",")])


@pytest.mark.parametrize(
    ("mode", "size"),
    [
        ("SAME_UPPER", (7, 8)),
        ("SAME_LOWER", (7, 8)),
        ("SAME_UPPER", (5, 1)),
        ("SAME_LOWER", (5, 1)),
        ("VALID", (7, 8)),
    ],
)
@pytest.mark.parametrize("operator", ["Conv", "MaxPool"])
@pytest.mark.parametrize(
    ("kernel", "strides"), [((3, 3), (1, 1)), ((2, 4), (2, 3)), ((2, 2), (3, 1))]
)
def test_auto_pad(
    tmp_path: Path,
    mode: str,
    size: tuple[int, int],
    operator: str,
    kernel: tuple[int, int],
    strides: tuple[int, int],
) -> None:
    """The written out pads give what auto_pad gives in onnxruntime, in shape and in numbers."""
    options = {"auto_pad": mode, "kernel_shape": kernel, "strides": strides}
    automatic, written = written_out(tmp_path, operator, size, **options)

    x = np.random.default_rng(2).normal(size=(2, 1, *size)).astype(np.float32)
    expected, found = run(automatic, x), run(written, x)

    assert expected.shape == found.shape
    assert np.allclose(expected, found, atol=1e-6)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_auto_pad_with_dilations(tmp_path: Path, mode: str) -> None:
    """Dilated, which onnxruntime does not do by itself, SAME is the size divided by the stride."""
    _, written = written_out(
        tmp_path,
        "Conv",
        (7, 8),
        auto_pad=mode,
        kernel_shape=(3, 2),
        strides=(2, 1),
        dilations=(2, 3),
    )

    assert (1, 1, 4, 8) == run(written, np.zeros((1, 1, 7, 8), np.float32)).shape


def run(model: ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"x": x})
    return np.asarray(found)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (model_of(node("Det", name="d"), opset=17), "node d (Det): this operator is not supported"),
        (model_of(node("Det")), "node Det_0 (Det)"),
        (
            model_of(node("Conv", "x", "x", name="c"), shape=("N", 1, 6, 8)),
            "node c (Conv): its input 1 has to be a constant",
        ),
        (
            model_of(node("Relu"), node("Relu", output="z"), outputs=("y", "z")),
            "it has 2 outputs (y, z), and not just one of them has a number for each of 2 labels",
        ),
        (model_of(node("Add", "x", "z"), inputs=("x", "z")), "it has 2 inputs (x, z), not one"),
        (
            model_of(node("Relu"), shape=("N", 3, 6, 8)),
            "its input x has shape [N, 3, 6, 8], and its model.toml makes [N, 1, 6, 8]",
        ),
        (model_of(node("Relu"), shape=("N", 1, 8, 6)), "its input x has shape [N, 1, 8, 6]"),
        (model_of(node("Relu"), shape=("N", 49)), "its input x has shape [N, 49]"),
        (
            model_of(node("Relu"), input_type=TensorProto.INT64),
            "its input x holds int64, not float32",
        ),
        (model_of(node("Relu"), opset=6), "it has opset 6, older than 7"),
    ],
)
def test_refused(tmp_path: Path, model: ModelProto, words: str) -> None:
    """What the worker cannot do is refused with the file, the node, its operator and the reason."""
    assert words in refusal(bundle_of(tmp_path, model)).message


def test_free_size(tmp_path: Path) -> None:
    """A height that the model leaves free is the one of model.toml, by which SAME is counted."""
    made = node("Conv", "x", "w", auto_pad="SAME_UPPER", strides=[4, 4])
    constants = {"w": np.ones((1, 1, 3, 3), np.float32)}

    parsed = compile_model(tmp_path, model_of(made, shape=("N", 1, "H", "W"), constants=constants))

    assert [-1, 1, 6, 8] == parsed.input[2]
    assert "0,0,1,0" == attributes(parsed)["pads"]


def test_used_second_output(tmp_path: Path) -> None:
    """A second output that somebody uses is not silently left out."""
    pool = helper.make_node("MaxPool", ["x"], ["y", "places"], kernel_shape=[2, 2], name="p")
    model = model_of(pool, helper.make_node("Cast", ["places"], ["z"], to=1), outputs=("z",))

    assert "node p (MaxPool)" in refusal(bundle_of(tmp_path, model)).message


@pytest.mark.parametrize(
    ("shape", "batch"), [(("N", 1, 6, 8), None), (("N", 1, "H", "W"), None), ((1, 1, 6, 8), 1)]
)
def test_free_and_fixed_shapes(
    tmp_path: Path, shape: Sequence[int | str], batch: int | None
) -> None:
    """A dimension that the model leaves free fits; a batch that it fixes stays fixed."""
    written = compile_bundle(bundle_of(tmp_path, model_of(node("Relu"), shape=shape)))

    assert (batch or -1) == parse(written).input[2][0]
    assert batch == fixed_batch(written)


@pytest.mark.parametrize("as_node", [True, False])
def test_external_data(tmp_path: Path, as_node: bool) -> None:
    """A tensor outside of the model's file is refused, wherever it lies, with what to do."""
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    (tmp_path / "w.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    if as_node:
        model = model_of(
            helper.make_node("Constant", [], ["w"], value=tensor), node("Add", "x", "w")
        )
    else:
        model = model_of(node("Add", "x", "w"))
        model.graph.initializer.append(tensor)

    error = refusal(bundle_of(tmp_path, model))

    assert "w lies outside the file" in error.message
    assert "fluxdrop model add" in error.hint


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"<html>", b"\x08"])
def test_no_model(tmp_path: Path, data: bytes) -> None:
    """A file that is no ONNX model is refused."""
    assert "is not a sound ONNX model" in refusal(bundle_of(tmp_path, data)).message


def test_damaged_anyhow(tmp_path: Path) -> None:
    """However a model is damaged, it is compiled or refused; nothing else comes out."""
    chance = random.Random(2026)
    constants: dict[str, NDArray[Any]] = {
        "w": np.ones((2, 1, 3, 3), np.float32),
        "shape": np.array([0, -1], np.int64),
    }
    intact = model_of(
        node("Conv", "x", "w", output="a", pads=[1, 1, 1, 1]),
        node("Relu", "a", output="b"),
        node("MaxPool", "b", output="c", kernel_shape=[2, 2]),
        helper.make_node("Constant", [], ["k"], value_float=2.0),
        node("Mul", "c", "k", output="d"),
        node("Reshape", "d", "shape", output="e"),
        node("Softmax", "e"),
        constants=constants,
    ).SerializeToString()
    kinds = set()

    for _ in range(400):
        data = bytearray(intact)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            parse(compile_bundle(bundle_of(tmp_path, bytes(data))))
        except FluxdropError as error:
            kinds.add(error.kind)
        else:
            kinds.add("compiled")

    assert {"model", "compiled"} == kinds


def test_model_that_changes_under_the_reader(tmp_path: Path) -> None:
    """A model that is not the one whose digest was taken is not compiled in its name."""
    bundle = bundle_of(tmp_path, model_of(node("Relu")))
    bundle.onnx.write_bytes(model_of(node("Tanh")).SerializeToString())

    assert "changed while it was being read" in refusal(bundle).message


def test_cache(tmp_path: Path) -> None:
    """A compiled model is kept and taken again, until the model is another."""
    cache = tmp_path / "graphs"
    cache.mkdir()
    bundle = bundle_of(tmp_path, model_of(node("Relu")))
    first = compiled(bundle, cache)
    (kept,) = cache.iterdir()
    kept.write_bytes(b"kept")

    again = compiled(bundle, cache)
    changed = compiled(bundle_of(tmp_path, model_of(node("Tanh"))), cache)

    assert (b"kept", "Tanh", 2) == (
        again,
        parse(changed).nodes[0]["operator"],
        len(list(cache.iterdir())),
    )
    assert first == compiled(bundle_of(tmp_path, model_of(node("Relu"))), None)
    assert bundle.sha256 in kept.name


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """Without a place to keep it the model is compiled all the same."""
    bundle = bundle_of(tmp_path, model_of(node("Relu")))

    assert compile_bundle(bundle) == compiled(bundle, tmp_path / "nowhere")


def test_same_model_same_bytes() -> None:
    """Compiling is a function of the model: the digest of a graph tells the model."""
    bundle = load_bundle("round-or-angular")

    digests = {hashlib.sha256(compile_bundle(bundle)).hexdigest() for _ in range(2)}

    assert 1 == len(digests)


def with_data_in(folder: Path, location: str) -> Path:
    """A model that adds ones, which it has in the file *location*."""
    folder.mkdir()
    model = model_of(node("Add", "x", "w"), constants={"w": np.ones(8, np.float32)})
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_data_beside_the_model(tmp_path: Path) -> None:
    """What a model keeps in a file beside it, as PyTorch writes it, becomes part of the one file."""
    path = with_data_in(tmp_path / "model", "model.onnx.data")
    (path.parent / "model.onnx.data").write_bytes(np.full(8, 5, np.float32).tobytes())

    (path.parent / "whole.onnx").write_bytes(one_file(path))

    assert [5.0] * 8 == numpy_helper.to_array(
        onnx.load(path.parent / "whole.onnx", load_external_data=False).graph.initializer[0]
    ).tolist()


@pytest.mark.parametrize("location", ["../secret", "{}/secret", "link", "absent", ""])
def test_data_outside_of_the_folder(tmp_path: Path, location: str) -> None:
    """Nothing from outside of the model's folder becomes part of it, and nothing that is not there."""
    (tmp_path / "secret").write_bytes(np.ones(8, np.float32).tobytes())
    path = with_data_in(tmp_path / "model", location.format(tmp_path))
    (path.parent / "link").symlink_to("../secret")

    with pytest.raises(ExternalDataError):
        one_file(path)


def test_one_file_is_left_alone(tmp_path: Path) -> None:
    """A model that is one file is the same to the byte, and so is what is no model."""
    path = tmp_path / "model.onnx"
    for data in (model_of(node("Relu")).SerializeToString(), b"no model"):
        path.write_bytes(data)

        assert data == one_file(path)
