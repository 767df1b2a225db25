"""Models that take pictures of any size, and are added for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fluxdrop import config
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.predict.library import AddedModel, add_model
from support.needs import needs_julia

pytestmark = pytest.mark.usefixtures("lent_worker")

ENGINES = ["onnxruntime", pytest.param("julia", marks=[needs_julia, pytest.mark.slow])]


def network() -> onnx.ModelProto:
    """A convolutional network with free height and width, which it computes a shape from."""
    weights = np.random.default_rng(5).standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Shape", ["c"], ["s"]),
        helper.make_node("Resize", ["c", "", "", "s"], ["r"], mode="nearest"),
        helper.make_node("ReduceMean", ["r", "axes"], ["m"], keepdims=0),
        helper.make_node("Softmax", ["m"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([2, 3]), "axes")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def add(root: Path, source: Path, engine: str, *size: int, replace: bool = False) -> AddedModel:
    """Add *source* for pictures of *size*."""
    options = {"size": list(size) or None}
    settings = config.load(None, {"engine": engine})
    return add_model(
        Root(root), source, settings, name="net", labels=None, options=options, replace=replace
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_any_size(tmp_path: Path, engine: str) -> None:
    """Without --size it is asked for; with it the model runs at that size, and later at another."""
    path = tmp_path / "net.onnx"
    path.write_bytes(network().SerializeToString())

    with pytest.raises(FluxdropError) as raised:
        add(tmp_path, path, engine)
    first = add(tmp_path, path, engine, 33, 20)
    second = add(tmp_path, Root(tmp_path).models / "net", engine, 16, 48, replace=True)

    assert "--size" in raised.value.hint
    for added, size in ((first, (33, 20)), (second, (16, 48))):
        assert size == tuple(added.bundle.spec.input.size)
        assert added.difference is not None
        assert added.difference < 1e-5
        assert engine == added.engine.engine
