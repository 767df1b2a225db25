"""From ONNX to graph files: names, constants, attributes, outputs, and what is kept of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.compiler.cache import compile_cached
from fluxdrop.predict.compiler.compile import compile_bundle
from fluxdrop.telemetry import import_onnxruntime
from support.graph_files import attributes, bundle_of, compile_model, model_of, node, parse


def test_embedded_model() -> None:
    """The embedded model is compiled whole, with each batch norm folded into the Conv before it."""
    bundle = load_bundle("round-or-angular")
    model = onnx.load(bundle.onnx)
    weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}

    parsed = parse(compile_bundle(bundle).to_bytes())

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
    session = import_onnxruntime().InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"x": x})
    return np.asarray(found)


def test_free_size(tmp_path: Path) -> None:
    """A height that the model leaves free is the one of model.toml, by which SAME is counted."""
    made = node("Conv", "x", "w", auto_pad="SAME_UPPER", strides=[4, 4])
    constants = {"w": np.ones((1, 1, 3, 3), np.float32)}

    parsed = compile_model(tmp_path, model_of(made, shape=("N", 1, "H", "W"), constants=constants))

    assert [-1, 1, 6, 8] == parsed.input[2]
    assert "0,0,1,0" == attributes(parsed)["pads"]


def test_several_outputs(tmp_path: Path) -> None:
    """Every output of a node is written, and one that is left out is a dash."""
    norm = helper.make_node("LayerNormalization", ["x", "w"], ["y", "", "z"])
    model = model_of(norm, outputs=("z",), constants={"w": np.ones(8, np.float32)})

    (only,) = compile_model(tmp_path, model).nodes

    assert ["y", "-", "z"] == only["out"]


def test_computed_weights(tmp_path: Path) -> None:
    """Weights may be computed, where their size is known."""
    model = model_of(
        helper.make_node("ReduceMean", ["x"], ["w"], axes=[0], keepdims=1),
        node("Conv", "x", "w", auto_pad="SAME_UPPER"),
        shape=("N", 1, 6, 8),
    )

    *_, last = compile_model(tmp_path, model).nodes

    assert (["x", "w"], ["2", "3", "3", "4"]) == (last["in"], last["pads"])


def test_cache(tmp_path: Path) -> None:
    """A compiled model is kept and taken again, until the model is another."""
    cache = tmp_path / "graphs"
    cache.mkdir()
    bundle = bundle_of(tmp_path, model_of(node("Relu")))
    first = compile_cached(bundle, cache).path.read_bytes()
    (kept,) = cache.iterdir()
    kept.write_bytes(b"kept")

    again = compile_cached(bundle, cache)
    changed = compile_cached(bundle_of(tmp_path, model_of(node("Tanh"))), cache)

    assert (b"kept", "Tanh", 2) == (
        again.path.read_bytes(),
        parse(changed.path.read_bytes()).nodes[0]["operator"],
        len(list(cache.iterdir())),
    )
    again = compile_cached(bundle_of(tmp_path, model_of(node("Relu"))), None)
    assert first == again.path.read_bytes()
    assert bundle.sha256 in kept.name


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """Without a place to keep it the model is compiled all the same, to a file that is there as long as it is used."""
    bundle = bundle_of(tmp_path, model_of(node("Relu")))

    file = compile_cached(bundle, tmp_path / "nowhere")
    path = file.path

    assert compile_bundle(bundle).to_bytes() == path.read_bytes()
    del file
    assert not path.parent.exists()


def test_same_model_same_bytes() -> None:
    """Compiling is a function of the model: the digest of a graph tells the model."""
    bundle = load_bundle("round-or-angular")

    digests = {hashlib.sha256(compile_bundle(bundle).to_bytes()).hexdigest() for _ in range(2)}

    assert 1 == len(digests)
