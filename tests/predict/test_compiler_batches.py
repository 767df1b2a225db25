"""Models that were exported for batches of one size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, helper

from fluxdrop.predict.compiler.compile import compile_bundle
from fluxdrop.predict.compiler.graph_file import write_temporary
from support.graph_files import bundle_of, model_of, node, parse


def batches_of(folder: Path, model: ModelProto) -> int | None:
    """The batches that the compiled *model* takes, which its file tells in two ways."""
    written = compile_bundle(bundle_of(folder, model))
    file = write_temporary(written)
    assert (file.fixed_batch() or -1) == parse(file.path.read_bytes()).input[2][0]
    return file.fixed_batch()


@pytest.mark.parametrize(
    "shape", [("N", 1, 6, 8), ("N", 1, "H", "W"), (1, 1, 6, 8), (2, 1, 6, 8), (7, 1, 6, 8)]
)
def test_free_batch(tmp_path: Path, shape: Sequence[int | str]) -> None:
    """A model that treats each picture alone takes any batch, whatever it was exported for."""
    assert batches_of(tmp_path, model_of(node("Relu"), shape=shape)) is None


@pytest.mark.parametrize("size", [1, 2])
def test_shapes_with_the_batch(tmp_path: Path, size: int) -> None:
    """Shapes in which the exported batch was written down are no obstacle, nor is a class token."""
    model = model_of(
        node("Reshape", "x", "rows", output="a"),
        helper.make_node("Concat", ["token", "a"], ["b"], axis=1),
        node("Expand", "b", "wide", output="c"),
        node("Reshape", "c", "flat"),
        constants={
            "rows": np.array([size, 6, 8]),
            "token": np.ones((size, 1, 8), np.float32),
            "wide": np.array([size, 7, 8]),
            "flat": np.array([size, 56]),
        },
        shape=(size, 1, 6, 8),
    )

    assert batches_of(tmp_path, model) is None


@pytest.mark.parametrize("mixing", [node("Softmax", axis=0), node("Flatten", axis=0)])
def test_pictures_that_mix(tmp_path: Path, mixing: NodeProto) -> None:
    """A model whose answer to a picture depends on those beside it stays with the batch it was made for."""
    model = model_of(mixing, shape=(2, 1, 6, 8))

    assert 2 == batches_of(tmp_path, model)
