"""Models of every shape in every engine, and those that one refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fluxdrop import config
from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle, load_bundle
from fluxdrop.predict.compiler.compile import compile_bundle
from fluxdrop.predict.compiler.graph_file import write_temporary
from fluxdrop.predict.julia_engine import JuliaEngine
from fluxdrop.provision import find_julia
from support.engines import ENGINES, opened
from support.needs import needs_julia

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("lent_worker")]


def bundle_of(
    folder: Path,
    *nodes: onnx.NodeProto,
    shape: Sequence[int | str] = ("N", 1, 4, 4),
    outputs: Sequence[str] = ("y",),
    constants: dict[str, NDArray[Any]] | None = None,
) -> Bundle:
    """A bundle whose model is made of *nodes*, from x to *outputs*, and has one label."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["a", "b"]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "model.toml").write_text('labels = ["a"]\n[input]\nsize = [4, 4]\nmode = "L"\n')
    return load_bundle(str(folder))


@needs_julia
def test_model_that_julia_refuses(tmp_path: Path) -> None:
    """A model that only onnxruntime can run: auto runs it and says why, julia is an error."""
    bundle = bundle_of(tmp_path, helper.make_node("Det", ["x"], ["y"], name="d"))

    with opened("auto", bundle) as engine:
        info = engine.info
    with pytest.raises(FluxdropError) as caught:
        opened("julia", bundle)

    assert "onnxruntime" == info.engine
    assert "node d (Det)" in str(info.note)
    assert "node d (Det)" in caught.value.message


@needs_julia
def test_model_that_the_worker_refuses(tmp_path: Path) -> None:
    """A graph that the worker cannot build is an error that names the file and the node."""
    bundle = bundle_of(tmp_path, helper.make_node("Flatten", ["x"], ["y"], name="flat"))
    graph = compile_bundle(bundle)
    graph.nodes[0] = replace(graph.nodes[0], operator="Flattem")
    install = find_julia()
    assert install is not None

    with pytest.raises(FluxdropError) as caught:
        JuliaEngine(config.Settings(), install, bundle, lambda: write_temporary(graph))

    assert [True, True] == [word in caught.value.message for word in (str(bundle.onnx), "flat")]


def flat(**attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Flatten", ["x"], ["y"], **attributes)


@pytest.mark.parametrize(
    ("nodes", "options"),
    [
        ([flat()], {"shape": ["N", 3, 4, 4]}),
        ([flat(axis=0)], {"shape": [2, 1, 4, 4]}),
        ([flat(), helper.make_node("Flatten", ["x"], ["z"])], {"outputs": ["y", "z"]}),
    ],
)
def test_model_that_does_not_fit(
    tmp_path: Path, nodes: list[onnx.NodeProto], options: dict[str, Any]
) -> None:
    """A model that does not fit its model.toml is refused when it is loaded, by its file's name."""
    bundle = bundle_of(tmp_path, *nodes, **options)

    with pytest.raises(FluxdropError) as caught:
        opened("onnxruntime", bundle)

    assert ("model", True) == (caught.value.kind, str(bundle.onnx) in caught.value.message)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", ENGINES)
def test_fixed_batch(tmp_path: Path, name: str, size: int) -> None:
    """A model that was exported for batches of one size takes any number of pictures all the same, and gives each
    what it gives it alone."""
    constants = {
        "rows": np.array([size, 4, 4]),
        "token": np.full((size, 1, 4), 3, np.float32),
        "flat": np.array([size, 20]),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["a"]),
        helper.make_node("Concat", ["token", "a"], ["b"], axis=1),
        helper.make_node("Reshape", ["b", "flat"], ["y"]),
    ]
    bundle = bundle_of(tmp_path, *nodes, shape=[size, 1, 4, 4], constants=constants)
    pictures = np.arange(5 * 16, dtype=np.float32).reshape(5, 1, 4, 4)
    expected = np.hstack([np.full((5, 4), 3, np.float32), pictures.reshape(5, 16)])

    with opened(name, bundle) as engine:
        found = [engine.predict(pictures[:count]) for count in (1, 2, 5)]

    for count, result in zip((1, 2, 5), found, strict=True):
        np.testing.assert_array_equal(expected[:count], result)


@pytest.mark.parametrize("name", ENGINES)
def test_mixing_batch(tmp_path: Path, name: str) -> None:
    """A model that mixes the pictures of a batch gets batches of the size that it was exported for."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["s"], axis=0),
        helper.make_node("Flatten", ["s"], ["y"]),
    ]
    bundle = bundle_of(tmp_path, *nodes, shape=[2, 1, 4, 4])
    pictures = np.ones((6, 1, 4, 4), np.float32)

    with opened(name, bundle) as engine:
        found = engine.predict(pictures)

    np.testing.assert_allclose(np.full((6, 16), 0.5), found)


@pytest.mark.parametrize("shape", [("N", 16), ("N", 4, 4), (2, 16), (None, None)])
@pytest.mark.parametrize("name", ENGINES)
def test_flat_input(tmp_path: Path, name: str, shape: Sequence[int | str]) -> None:
    """A model that takes a picture's numbers in a row, or one channel as a matrix, is given them so."""
    bundle = bundle_of(tmp_path, flat(), shape=shape)
    pictures = np.arange(3 * 16, dtype=np.float32).reshape(3, 1, 4, 4)

    with opened(name, bundle) as engine:
        found = engine.predict(pictures)

    np.testing.assert_array_equal(pictures.reshape(3, 16), found)


@pytest.mark.parametrize("location", ["../secret.bin", "{}/secret.bin", "link.bin"])
@pytest.mark.parametrize("name", ENGINES)
def test_data_outside_of_the_bundle(tmp_path: Path, name: str, location: str) -> None:
    """No engine reads a tensor from a file outside of the bundle, by whatever way it leads there."""
    (tmp_path / "secret.bin").write_bytes(np.ones(16, np.float32).tobytes())
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Add", ["f", "w"], ["y"]),
    ]
    folder = tmp_path / "bundle"
    bundle_of(folder, *nodes, constants={"w": np.ones(16, np.float32)})
    (folder / "link.bin").symlink_to("../secret.bin")
    model = onnx.load(folder / "model.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location.format(tmp_path))
    (folder / "model.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(FluxdropError, match=r"model\.onnx cannot be ") as caught:
        opened(name, load_bundle(str(folder)))

    assert "model" == caught.value.kind
