"""Models of Keras, which Keras exports in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.predict.library import AddedModel, add_model
from fluxdrop.predict.origin.keras_export import backend
from fluxdrop.predict.origin.weights import export

pytestmark = pytest.mark.slow
exports = pytest.mark.skipif(
    backend() is None, reason="needs keras, and torch with onnxscript, tensorflow or jax"
)

MAKE = """
import keras
from keras import layers

def save(name, size, *first):
    keras.utils.set_random_seed(17)
    keras.Sequential([
        layers.Input(size), *first, layers.Conv2D(4, 3, strides=2, padding="same"),
        layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax"),
    ]).save(name)

save("plain.keras", (32, 48, 1))
save("rescaling.keras", (32, 48, 3), layers.Rescaling(1 / 127.5, offset=-1))
save("normalization.keras", (None, None, 3), layers.Normalization(mean=[120.0], variance=[3000.0]))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models of Keras; it is not imported here, as its backend cannot be changed afterwards."""
    folder = tmp_path_factory.mktemp("keras")
    environment = os.environ | {"KERAS_BACKEND": backend() or ""}
    subprocess.run([sys.executable, "-c", MAKE], cwd=folder, env=environment, check=True)
    return folder


def add(folder: Path, source: Path, size: list[int] | None = None) -> AddedModel:
    """Add *source* to a root in *folder*."""
    settings = Settings(engine="onnxruntime")
    options = {"size": size}
    return add_model(Root(folder), source, settings, name=None, labels=None, options=options)


@exports
@pytest.mark.parametrize(
    ("name", "size", "scale"),
    [
        ("plain", None, 255.0),
        ("rescaling", None, 1.0),
        ("normalization", [48, 32], 1.0),
    ],
)
def test_added(
    models: Path, tmp_path: Path, name: str, size: list[int] | None, scale: float
) -> None:
    """A .keras file is added as it is, and answers as Keras' predict does; layers say what the pixels are."""
    added = add(tmp_path, models / f"{name}.keras", size)

    table = added.bundle.spec.input
    assert (scale, "NHWC", "opencv") == (table.scale, table.layout, table.resampler)
    assert (48, 32) == tuple(table.size)
    assert added.comparison is not None
    assert added.comparison.difference < 1e-3
    assert added.comparison.same_first == added.comparison.pictures


@exports
def test_free_size(models: Path, tmp_path: Path) -> None:
    """A network that leaves the size of its pictures free needs --size, and the error says so."""
    with pytest.raises(FluxdropError, match="--size"):
        add(tmp_path, models / "normalization.keras")


@exports
def test_code(models: Path, tmp_path: Path) -> None:
    """Code in a file, here of a Lambda layer, is not loaded."""
    harmful = tmp_path / "harmful.keras"
    with zipfile.ZipFile(models / "plain.keras") as good, zipfile.ZipFile(harmful, "w") as bad:
        for item in good.namelist():
            content = good.read(item)
            if item == "config.json":
                config = json.loads(content)
                code = {"class_name": "__lambda__", "config": {"code": "4wA=", "defaults": None}}
                config["config"]["layers"][1] = {
                    "module": "keras.layers",
                    "class_name": "Lambda",
                    "config": {"name": "code", "function": code},
                    "registered_name": None,
                }
                content = json.dumps(config).encode()
            bad.writestr(item, content)

    with pytest.raises(FluxdropError, match=r"cannot be exported to ONNX: .*[Ll]ambda") as raised:
        add(tmp_path, harmful)
    assert "keras.saving.load_model" in raised.value.hint


@pytest.mark.skipif(find_spec("keras") is not None, reason="keras is installed")
def test_not_installed(tmp_path: Path) -> None:
    """Without Keras the error says how to write the ONNX file."""
    file = tmp_path / "model.keras"
    file.touch()

    with pytest.raises(FluxdropError, match="is a model of Keras") as raised:
        export(file, tmp_path, [])
    assert "format='onnx'" in raised.value.hint
