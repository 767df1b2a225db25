"""Folders with weights and no ONNX file: have torch write one, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.origin import huggingface, timm
from fluxdrop.predict.origin.facts import read_json
from fluxdrop.predict.origin.torch_export import Answer

if TYPE_CHECKING:
    from PIL.Image import Image

PICKLES = (".bin", ".ckpt", ".h5", ".pkl", ".pt", ".pth")
INSTALL = "pip install 'fluxdrop[torch]'"

_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
_LOG_LINES = 3


class Original(NamedTuple):
    """What the original pipeline made of pictures, and who it is."""

    library: str
    """Such as ``transformers 5.23.0``."""
    processor: str
    """The name of what prepared the pictures."""
    resampler: str
    """Whose arithmetic it resizes with: a value of ``input.resampler``, or empty."""
    labels: list[str] | None
    """The labels that the library knows and the files do not say."""
    outputs: NDArray[np.float32]
    """[N, K], one row per picture."""
    inputs: NDArray[np.float32]
    """[N, C, H, W]."""


def has_weights(folder: Path) -> bool:
    """Whether *folder* holds a model of transformers or timm as safetensors."""
    return any((folder / name).is_file() for name in _SAFETENSORS)


def refuse_pickles(source: Path) -> None:
    """Check that *source*, a file or folder without a model that can be used, is not a pickle or of TensorFlow.

    Raises:
        FluxdropError: Kind ``model``, when it is; the hint says how to get a file that can be used.
    """
    files = [source] if source.is_file() else sorted(source.iterdir()) if source.is_dir() else []
    for file in files:
        if file.suffix == ".keras" or file.name == "saved_model.pb":
            raise FluxdropError(f"{file} is a model of Keras", hint=_keras_hint(file), kind="model")
        if file.suffix == ".h5":
            raise FluxdropError(
                f"{file} is a model of Keras in its earlier format",
                hint="In Python: keras.models.load_model(FILE).export('model.onnx', format='onnx')",
                kind="model",
            )
        if file.suffix in PICKLES:
            raise FluxdropError(
                f"{file} is a pickle, which can run any code when it is loaded: fluxdrop never does",
                hint="Where you trust its maker, load it in Python and write model.save_pretrained(FOLDER)"
                " (transformers), timm.models.save_for_hf(model, FOLDER, safe_serialization=True) or"
                " torch.onnx.export(...).",
                kind="model",
            )


def _keras_hint(file: Path) -> str:
    if file.suffix == ".keras":
        return "In Python: keras.saving.load_model(FILE).export('model.onnx', format='onnx'), then add model.onnx."
    return (
        f"Run: python -m tf2onnx.convert --saved-model {file.parent} --opset 18 --output model.onnx"
    )


def export(folder: Path, out: Path, pictures: Sequence[Image]) -> Original:
    """Write the model in *folder* to ``model.onnx`` in the empty folder *out*, and run the original on *pictures*.

    Args:
        folder: A folder of which `has_weights` is true.
        out: Gets the model.
        pictures: RGB pictures, at least one.

    Raises:
        FluxdropError: Kind ``model``, when a package is missing, or the libraries cannot load or export the model.
    """
    _check_packages(folder)
    (out / "pictures").mkdir()
    for index, picture in enumerate(pictures):
        picture.save(out / "pictures" / f"{index:06}.png")
    answer_file = out / "answer.json"
    module = "fluxdrop.predict.origin.torch_export"
    command = [sys.executable, "-m", module, str(folder.resolve()), str(out)]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    ended = subprocess.run(
        command, env=os.environ | offline, capture_output=True, text=True, check=False
    )
    if not answer_file.is_file():
        lines = ended.stderr.strip().splitlines()[-_LOG_LINES:]
        raise FluxdropError(
            f"{folder} cannot be exported: the process with torch ended with {ended.returncode}"
            f" ({' '.join(lines) or 'no message'})",
            hint="There may be too little memory for it.",
            kind="model",
        )
    answer = msgspec.json.decode(answer_file.read_bytes(), type=Answer)
    if answer.error is not None:
        raise FluxdropError(
            f"{folder} cannot be exported to ONNX: {answer.error}",
            hint="Export it in Python with torch.onnx.export, put model.onnx into the folder and add it again.",
            kind="model",
        )
    with np.load(out / "reference.npz") as reference:
        outputs, inputs = reference["outputs"], reference["inputs"]
    return Original(
        answer.library, answer.processor, answer.resampler, answer.labels, outputs, inputs
    )


def _check_packages(folder: Path) -> None:
    """Check that the packages that *folder* needs are installed, without importing them."""
    config = read_json(folder / huggingface.CONFIG)
    if config is None or not (timm.is_config(config) or huggingface.is_config(config)):
        raise FluxdropError(
            f"{folder} has weights, but no config.json of transformers or timm that says what they are",
            hint="Give a folder as save_pretrained or timm's save_for_hf writes it, or an ONNX file.",
            kind="model",
        )
    if timm.is_config(config):
        needed = ["torch", "onnxscript", "safetensors", "torchvision", "timm"]
    else:
        needed = ["torch", "onnxscript", "safetensors", "transformers"]
        huggingface.refuse_other_tasks(folder, config)
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise FluxdropError(
            f"{folder} has weights and no ONNX file, and {', '.join(missing)}, which would make one,"
            f" {'is' if len(missing) == 1 else 'are'} not installed",
            hint=f"Run: {INSTALL}",
            kind="model",
        )
