"""Sessions of onnxruntime whose optimiser changes no numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.compiler.source import normal_form, parse
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from support.graph_files import bundle_of, model_of, node


@pytest.mark.parametrize("form", ["as it is", "normal form"])
def test_padding_before_a_pooling(tmp_path: Path, form: str) -> None:
    """Zeros around negative numbers are the largest ones of a MaxPool, as in BiT: they are not left out."""
    model = model_of(
        node("Pad", "x", "around", output="a"),
        node("MaxPool", "a", output="b", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "b"),
        constants={"around": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
    )
    if form == "normal form":
        model = normal_form(parse(model.SerializeToString()))
    bundle: Bundle = bundle_of(tmp_path, model)
    numbers = -1 - np.arange(48, dtype=np.float32).reshape(1, 1, 6, 8)
    padded = np.pad(numbers[0, 0], 1).reshape(4, 2, 5, 2)

    found = OnnxruntimeEngine(bundle, optimised=form == "as it is").predict(numbers)

    assert padded.max(axis=(1, 3)).ravel().tolist() == found[0].tolist()
