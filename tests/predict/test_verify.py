"""What counts as a defect: a difference that rounding does not explain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluxdrop import config
from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.predict.parity import samples
from fluxdrop.predict.verify import Comparison, compare, rounding_noise
from support.graph_files import bundle_of, model_of, node

JULIA = EngineInfo(engine="julia", backend="plain", version="1")


def touchy(folder: Path, factor: float) -> Bundle:
    """A model that multiplies the rounding of its first half by *factor*."""
    weights = np.random.default_rng(1).normal(size=(4, 1, 3, 3)).astype(np.float32)
    model = model_of(
        node("Conv", "x", "w", output="c"),
        node("Mul", "c", "factor", output="m"),
        node("Sin", "m", output="s"),
        node("Flatten", "s"),
        constants={"w": weights, "factor": np.array(factor, np.float32)},
    )
    return bundle_of(folder, model)


def compared(bundle: Bundle, error: float) -> Comparison:
    """The comparison of onnxruntime's output with the same plus *error* times the model's noise."""
    settings = config.Settings()
    batch = samples(bundle, settings)
    expected = OnnxruntimeEngine(bundle).predict(batch)
    noise = rounding_noise(bundle, batch, expected)
    found = expected.copy()
    found[0, 0] += error * noise * np.abs(expected).max()
    return compare(bundle, settings, batch, expected, found, JULIA)


def test_rounding(tmp_path: Path) -> None:
    """What is about as large as the model's own rounding is no defect, and is told."""
    result = compared(touchy(tmp_path, 10000), 2)

    assert 1e-4 < result.difference < 1e-2
    assert "rounding alone changes its output" in str(result.remark)


@pytest.mark.parametrize("factor", [1, 10000])
def test_defect(tmp_path: Path, factor: float) -> None:
    """What is much larger than rounding is a defect, with the engine that has the model meanwhile."""
    with pytest.raises(FluxdropError, match=r"where rounding explains \d") as caught:
        compared(touchy(tmp_path, factor), 10000 / factor * 20)

    assert "--engine onnxruntime" in caught.value.hint


def test_small_difference(tmp_path: Path) -> None:
    """What is within the tolerance needs no remark."""
    assert compared(touchy(tmp_path, 1), 1).remark is None


def test_half_precision(tmp_path: Path) -> None:
    """onnxruntime is the reference: what it computes with half precision is told, not refused."""
    bundle = touchy(tmp_path, 1)
    batch = samples(bundle, config.Settings())
    expected = OnnxruntimeEngine(bundle).predict(batch)
    rounded = expected.astype(np.float16).astype(np.float32)
    engine = EngineInfo(engine="onnxruntime", backend="onnxruntime", version="1")

    result = compare(bundle, config.Settings(), batch, expected, rounded, engine)

    assert "lower precision" in str(result.remark)
