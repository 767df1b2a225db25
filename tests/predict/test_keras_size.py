"""Files that Keras exported without the size of their pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.origin.gather import gather
from fluxdrop.predict.origin.weights import refuse_pickles


def network(
    height: int | str, pad: int = 1, stride: int = 2, producer: str = "pytorch"
) -> onnx.ModelProto:
    """A convolution of pictures with channels last, as Keras exports it on PyTorch."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["y"], pads=[pad] * 4, strides=[stride] * 2),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", height, height, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((1, 3, 3, 3), np.float32), "w")],
    )
    return helper.make_model(graph, producer_name=producer)


@pytest.mark.parametrize(
    ("made", "warned"),
    [
        (network("H"), True),
        (network("H", pad=0), False),
        (network("H", stride=1), False),
        (network("H", producer="tf2onnx"), False),
        (network(32), False),
    ],
)
def test_free_size(made: onnx.ModelProto, warned: bool) -> None:
    """Padding that may be that for one pixel is a warning with the call that exports the model for one size."""
    notes = gather(Path("strokes.onnx"), made, None).notes

    assert [warned] == list({"input_signature=" in note for note in notes} or {False})


def test_one_pixel() -> None:
    """A model for pictures of one pixel is refused with the same call, as Keras 3.13 makes one of a free size."""
    with pytest.raises(FluxdropError, match=r"strokes\.onnx takes pictures of one pixel") as raised:
        gather(Path("strokes.onnx"), network(1), None)

    assert "input_signature=" in raised.value.hint


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_export_call(tmp_path: Path, name: str) -> None:
    """What has to be exported by hand is refused with the call that fixes the size."""
    file = tmp_path / name
    file.touch()

    with pytest.raises(FluxdropError) as raised:
        refuse_pickles(file)

    assert "input_signature=" in raised.value.hint
