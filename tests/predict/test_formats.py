"""Models as other tools and other years wrote them: weights among the inputs, nodes in any order, odd outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fluxdrop import config
from fluxdrop.files.layout import Root
from fluxdrop.predict.bundle import Bundle, load_bundle
from fluxdrop.predict.compiler.compile import float32_form
from fluxdrop.predict.engine import label_rows
from fluxdrop.predict.library import add_model
from support.engines import ENGINES, opened
from support.graph_files import bundle_of, compile_model, model_of, node, refusal

pytestmark = pytest.mark.usefixtures("lent_worker")


def test_weights_among_the_inputs(tmp_path: Path) -> None:
    """A file of IR version 3 lists its weights as inputs, before the picture; equal ones stay apart."""
    model = model_of(
        node("Mul", "x", "two", output="a"),
        node("Add", "a", "also_two"),
        inputs=("two", "x", "also_two"),
        constants={name: np.full(1, 2, np.float32) for name in ("two", "also_two")},
        opset=9,
    )
    model.ir_version = 3

    parsed = compile_model(tmp_path, model)

    assert "x" == parsed.input[0]
    assert ["Mul", "Add"] == [item["operator"] for item in parsed.nodes]


def test_unsorted_nodes(tmp_path: Path) -> None:
    """Nodes that come before what they read are sorted, as converters of float types append their casts."""
    model = model_of(node("Relu", "b"), node("Tanh", "a", output="b"), node("Neg", "x", output="a"))

    parsed = compile_model(tmp_path, model)

    assert ["Neg", "Tanh", "Relu"] == [item["operator"] for item in parsed.nodes]


def test_circle(tmp_path: Path) -> None:
    """Nodes that need each other are no valid model."""
    model = model_of(node("Relu", "a"), node("Add", "y", "x", output="a"))

    assert "depend on each other in a circle" in refusal(bundle_of(tmp_path, model)).message


@pytest.mark.parametrize(
    ("given", "pictures", "rows"),
    [
        ((2, 5, 1, 1), 2, (2, 5)),
        ((2, 5, 1), 2, (2, 5)),
        ((1, 1, 1, 1), 1, (1, 1)),
        ((5,), 1, (1, 5)),
        ((2,), 2, (2, 1)),
        ((), 1, (1, 1)),
        ((2, 5), 2, (2, 5)),
        ((2, 5, 1, 3), 2, (2, 5, 1, 3)),
    ],
)
def test_label_rows(given: tuple[int, ...], pictures: int, rows: tuple[int, ...]) -> None:
    """An output with one row of numbers a picture becomes [N, K]; any other is left as it is."""
    assert rows == label_rows(np.zeros(given, np.float32), pictures).shape


def squeezed(last: str) -> ModelProto:
    """A model of fixed batch size 1 that ends in *last*, and gives the sums of the rows of its picture."""
    axes = {"reduced": [3], "squeezed": [0, 1, 3]}
    nodes = [node("ReduceSum", "x", "reduced", output="sums", keepdims=1)]
    if last == "Transpose":
        nodes.append(node("Transpose", "sums", perm=[0, 2, 1, 3]))
    else:
        nodes.append(node("Squeeze", "sums", "squeezed"))
    constants = {key: np.array(value) for key, value in axes.items()}
    model = model_of(*nodes, constants=constants, shape=(1, 1, 6, 8))
    shape = (1, 6, 1, 1) if last == "Transpose" else (6,)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    model.graph.output[0].CopyFrom(output)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("last", ["Transpose", "Squeeze"])
@pytest.mark.parametrize("name", ENGINES)
def test_odd_outputs(tmp_path: Path, name: str, last: str) -> None:
    """An output of shape [N, K, 1, 1], or [K] of one picture, is one row a picture in each engine."""
    bundle = bundle_of(tmp_path, squeezed(last))
    pictures = np.arange(3 * 48, dtype=np.float32).reshape(3, 1, 6, 8)

    with opened(name, bundle) as engine:
        found = engine.predict(pictures)

    np.testing.assert_array_equal(pictures.sum(axis=3)[:, 0], found)


WEIGHTS = np.random.default_rng(3).normal(size=(48, 2)).astype(np.float32)


def typed(kind: int, *, keep_io_types: bool = False) -> ModelProto:
    """A linear model in the float type *kind*, perhaps with float32 at its ends and a cast after its last node."""
    weights = helper.make_tensor("w", kind, WEIGHTS.shape, WEIGHTS.ravel())
    nodes = [node("Flatten", "h" if keep_io_types else "x", output="f"), node("MatMul", "f", "w")]
    ends = TensorProto.FLOAT if keep_io_types else kind
    if keep_io_types:
        nodes[1].output[0] = "m"
        nodes.append(node("Cast", "m", to=TensorProto.FLOAT))
        nodes.append(node("Cast", "x", output="h", to=kind))
    model = model_of(*nodes, input_type=ends)
    model.graph.output[0].type.tensor_type.elem_type = ends
    model.graph.initializer.append(weights)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "keep_io_types"), [("FLOAT16", True), ("BFLOAT16", False), ("DOUBLE", False)]
)
@pytest.mark.parametrize("name", ENGINES)
def test_float_types(tmp_path: Path, name: str, kind: str, keep_io_types: bool) -> None:
    """Models of other float types run in each engine, in Julia as float32: only the weights are rounded."""
    model = typed(getattr(TensorProto, kind), keep_io_types=keep_io_types)
    (weights,) = model.graph.initializer
    pictures = np.random.default_rng(4).normal(size=(3, 1, 6, 8)).astype(np.float32)
    expected = pictures.reshape(3, 48) @ numpy_helper.to_array(weights).astype(np.float32)

    with opened(name, bundle_of(tmp_path, model)) as engine:
        found = engine.predict(pictures)

    np.testing.assert_allclose(found, expected, atol=1e-5 if name == "julia" else 0.05)


def test_reference_is_float32(tmp_path: Path) -> None:
    """A model of half precision is compared in its float32 form; one of float32 as it is."""
    half = bundle_of(tmp_path, typed(TensorProto.FLOAT16))
    whole = float32_form(half)
    single = bundle_of(tmp_path, typed(TensorProto.FLOAT))

    assert whole is not None
    assert TensorProto.FLOAT == ModelProto.FromString(whole).graph.initializer[0].data_type
    assert float32_form(single) is None


def test_double_beyond_float32(tmp_path: Path) -> None:
    """A number that float32 does not have, such as a mask's lowest double, becomes its largest and not infinite."""
    lowest = np.array(np.finfo(np.float64).min)
    model = model_of(
        node("Max", "x", "low"), constants={"low": lowest}, input_type=TensorProto.DOUBLE
    )
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE

    parsed = compile_model(tmp_path, model)

    assert np.finfo(np.float32).min == parsed.tensors["low"]


def integers(kind: int, shape: tuple[Any, ...] = ("N", 6, 8, 3)) -> ModelProto:
    """A model that takes pixels of the integer type *kind* and gives the means of the channels."""
    return model_of(
        node("Cast", "x", output="f", to=TensorProto.FLOAT),
        node("ReduceMean", "f", axes=[1, 2], keepdims=0),
        shape=shape,
        input_type=kind,
    )


def added(root: Root, model: ModelProto, name: str, **options: Any) -> Bundle:
    path = root.path / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    settings = config.Settings(engine="onnxruntime")
    return add_model(
        root,
        path,
        settings,
        name=None,
        labels=["r", "g", "b"],
        options={"output": "logits"} | options,
    ).bundle


@pytest.mark.parametrize(
    ("kind", "scale", "mean"),
    [("UINT8", 1, (0,)), ("INT32", 1, (0,)), ("INT8", 1, (128,)), ("FLOAT", 255, (0,))],
)
def test_pixels_as_integers(
    tmp_path: Path, kind: str, scale: float, mean: tuple[float, ...]
) -> None:
    """A model that takes integers is given the pixels as they are, without an option."""
    root = Root(tmp_path)
    model = integers(getattr(TensorProto, kind))
    model.graph.output[0].type.tensor_type.shape.dim.pop()
    model.graph.output[0].type.tensor_type.shape.dim.pop()

    spec = added(root, model, "pixels").spec.input

    assert ((8, 6), "NHWC", scale, mean) == (spec.size, spec.layout, spec.scale, spec.mean)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_integers_in_each_engine(tmp_path: Path, name: str) -> None:
    """Each engine passes pixels to a model that takes uint8, in the model's layout."""
    model = integers(TensorProto.UINT8)
    del model.graph.output[0].type.tensor_type.shape.dim[2:]
    bundle = bundle_of(tmp_path, model, size=(3, 6, 8))
    text = (tmp_path / "model.toml").read_text() + 'layout = "NHWC"\nscale = 1\n'
    (tmp_path / "model.toml").write_text(text)
    bundle = load_bundle(str(tmp_path))
    pictures = np.random.default_rng(5).integers(0, 256, (2, 6, 8, 3)).astype(np.float32)

    with opened(name, bundle) as engine:
        found = engine.predict(pictures)

    np.testing.assert_allclose(found, pictures.mean(axis=(1, 2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("UINT8", {}, "input x holds uint8, and its model.toml makes fractions of the pixels"),
        ("UINT8", {"scale": 1, "mean": [1]}, "holds uint8, and its model.toml makes -1 to 254"),
        ("INT8", {"scale": 1}, "input x holds int8, and its model.toml makes 0 to 255"),
        ("STRING", {}, "input x holds string, not numbers"),
    ],
)
def test_pixels_that_do_not_fit(
    tmp_path: Path, kind: str, options: dict[str, Any], words: str
) -> None:
    """Pictures that integers cannot hold are refused, with the options that make them fit."""
    model = integers(getattr(TensorProto, kind), shape=("N", 1, 6, 8))
    bundle_of(tmp_path, model)
    lines = "".join(f"{key} = {value}\n" for key, value in options.items())
    (tmp_path / "model.toml").write_text((tmp_path / "model.toml").read_text() + lines)

    error = refusal(load_bundle(str(tmp_path)))

    assert words in error.message
    assert "--scale 1" in error.hint
