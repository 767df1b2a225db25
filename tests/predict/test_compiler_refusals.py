"""What the compiler does not take: operators, inputs, data outside of the file, damage."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.compiler.compile import compile_bundle
from fluxdrop.predict.compiler.external_data import ExternalDataError, copy_model
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from support.graph_files import bundle_of, model_of, node, parse, refusal


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (model_of(node("Det", name="d"), opset=17), "node d (Det): this operator is not supported"),
        (model_of(node("Det")), "node Det_0 (Det)"),
        (
            model_of(
                helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
                helper.make_node("Reshape", ["i", "flat"], ["s"]),
                helper.make_node("ConstantOfShape", ["s"], ["w"]),
                node("Conv", "x", "w", name="c"),
                constants={"flat": np.array([-1])},
            ),
            "node c (Conv): the size of its weights is not known",
        ),
        (
            model_of(
                node("BatchNormalization", "x", *"wwww", name="b", training_mode=1),
                constants={"w": np.ones(1, np.float32)},
            ),
            "node b (BatchNormalization) is in training mode",
        ),
        (
            model_of(node("Relu"), node("Relu", output="z"), outputs=("y", "z")),
            "it has 2 outputs (y, z), and it is not clear which of them has a number for each label",
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
            "its input x holds int64, and its model.toml makes fractions",
        ),
        (model_of(node("Relu"), opset=6), "it has opset 6, older than 7"),
    ],
)
def test_refused(tmp_path: Path, model: ModelProto, words: str) -> None:
    """What the worker cannot do is refused with the file, the node, its operator and the reason."""
    assert words in refusal(bundle_of(tmp_path, model)).message


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

    assert "w is outside the file" in error.message
    assert "fluxdrop model add" in error.hint


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"<html>", b"\x08"])
def test_no_model(tmp_path: Path, data: bytes) -> None:
    """A file that is no ONNX model is refused."""
    assert "is not a valid ONNX model" in refusal(bundle_of(tmp_path, data)).message


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
            parse(compile_bundle(bundle_of(tmp_path, bytes(data))).to_bytes())
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

    copy_model(path, tmp_path)

    assert ["model", "model.onnx"] == sorted(item.name for item in tmp_path.iterdir())
    assert [5.0] * 8 == numpy_helper.to_array(
        onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.initializer[0]
    ).tolist()


def test_too_large_for_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that do not fit into model.onnx lie beside it; both make the digest, and all engines read them."""
    monkeypatch.setattr("fluxdrop.predict.compiler.external_data._MAX_ONE_FILE", 10)
    path = with_data_in(tmp_path / "model", "weights.bin")
    (path.parent / "weights.bin").write_bytes(np.full(8, 5, np.float32).tobytes())
    copy = tmp_path / "copy"
    copy.mkdir()

    copy_model(path, copy)
    bundle = bundle_of(copy, (copy / "model.onnx").read_bytes())

    assert (copy / "model.onnx.data").is_file()
    assert [5.0] * 8 == parse(compile_bundle(bundle).to_bytes()).tensors["w"].tolist()
    picture = np.ones((1, 1, 6, 8), np.float32)
    np.testing.assert_array_equal(picture + 5, OnnxruntimeEngine(bundle).predict(picture))
    (copy / "model.onnx.data").write_bytes(np.full(8, 6, np.float32).tobytes())
    assert "changed while it was being read" in refusal(bundle).message


def test_data_file_that_is_a_link(tmp_path: Path) -> None:
    """The file beside a model is not read if it is a link to another place."""
    path = with_data_in(tmp_path / "model", "model.onnx.data")
    (tmp_path / "secret").write_bytes(np.ones(8, np.float32).tobytes())
    (path.parent / "model.onnx.data").symlink_to("../secret")

    bundle = bundle_of(path.parent, path.read_bytes())

    assert "w is outside the file" in refusal(bundle).message


@pytest.mark.parametrize("location", ["../secret", "{}/secret", "link", "absent", ""])
def test_data_outside_of_the_folder(tmp_path: Path, location: str) -> None:
    """Nothing from outside of the model's folder becomes part of it, and nothing that is not there."""
    (tmp_path / "secret").write_bytes(np.ones(8, np.float32).tobytes())
    path = with_data_in(tmp_path / "model", location.format(tmp_path))
    (path.parent / "link").symlink_to("../secret")

    with pytest.raises(ExternalDataError):
        copy_model(path, tmp_path)


def test_one_file_is_left_alone(tmp_path: Path) -> None:
    """A model that is one file is the same to the byte, and so is what is no model."""
    path = tmp_path / "model.onnx"
    copies = tmp_path / "copies"
    copies.mkdir()
    for data in (model_of(node("Relu")).SerializeToString(), b"no model"):
        path.write_bytes(data)
        copy_model(path, copies)

        assert data == (copies / "model.onnx").read_bytes()
