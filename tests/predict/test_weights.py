"""Large weights are left out of the copies that are made of a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from fluxdrop.predict.compiler import weights
from support.graph_files import bundle_of, model_of, node

LARGE = np.random.default_rng(1).normal(size=(48, 400)).astype(np.float32)


def made(columns: int = 1) -> ModelProto:
    """A model with a large weight, repeated so many times, and a small one."""
    return model_of(
        node("Flatten", output="f"),
        node("MatMul", "f", "large", output="m"),
        node("Add", "m", "small"),
        constants={"large": np.tile(LARGE, columns), "small": np.ones(1, np.float32)},
    )


def test_change(tmp_path: Path) -> None:
    """A change sees the large weights as inputs and the small ones as they are; afterwards all are there."""
    model = made()
    before = model.SerializeToString()
    seen: list[ModelProto] = []

    def change(light: ModelProto) -> ModelProto:
        seen.append(ModelProto.FromString(light.SerializeToString()))
        light.graph.node[0].name = "changed"
        return light

    weights.change_without_weights(model, change)

    assert ["x", "large"] == [item.name for item in seen[0].graph.input]
    assert ["small"] == [item.name for item in seen[0].graph.initializer]
    assert ["x"] == [item.name for item in model.graph.input]
    assert "changed" == model.graph.node[0].name
    found = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    np.testing.assert_array_equal(LARGE, found["large"])
    assert {"large", "small"} == found.keys()
    kept = weights.structure(ModelProto.FromString(before))
    weights.restore(model, kept)
    assert "" == model.graph.node[0].name


def test_file(tmp_path: Path) -> None:
    """A model that was saved has its weights when it is read again."""
    model = made()

    found = weights.load(weights.save(model, tmp_path))

    arrays = {item.name: numpy_helper.to_array(item) for item in found.graph.initializer}
    np.testing.assert_array_equal(LARGE, arrays["large"])
    assert list(model.graph.node) == list(found.graph.node)


PEAK = """
import resource, sys
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.compiler.cache import compile_cached

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

compile_cached(load_bundle(sys.argv[1]), None)
before = peak()
compile_cached(load_bundle(sys.argv[2]), None)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_peak_memory(tmp_path: Path) -> None:
    """Compiling a model needs at most three times the memory of its weights."""
    folders = [tmp_path / name for name in ("small", "large")]
    for folder, columns in zip(folders, (1, 800), strict=True):
        folder.mkdir()
        bundle_of(folder, made(columns))

    ended = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, folders)], capture_output=True, text=True, check=True
    )

    assert int(ended.stdout) < 3 * 800 * LARGE.nbytes
