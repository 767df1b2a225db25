"""Weights and no ONNX file: have their library write one, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.origin import huggingface, keras_export, timm
from fluxdrop.predict.origin.facts import read_json
from fluxdrop.predict.origin.keras_size import EXPORT
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
    """[N, C, H, W] or [N, H, W, C], as the model has it."""
    table: dict[str, tuple[Any, str]]
    """Keys of ``[input]`` that the library knows, each with its source."""


def has_weights(source: Path) -> bool:
    """Whether *source* is a folder of transformers or timm with safetensors, or is or has a .keras file."""
    if keras_export.keras_file(source) is not None:
        return True
    return any((source / name).is_file() for name in _SAFETENSORS)


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
                hint=f"In Python, where you trust its maker: model = keras.models.load_model(FILE); {EXPORT}",
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
        return (
            "In Python, with keras and onnxscript (torch) or tf2onnx (TensorFlow):"
            f" model = keras.saving.load_model(FILE); {EXPORT}. Then add model.onnx."
        )
    return (
        "To load it is to run its graph, which can read and write files. Where you trust its maker, run:"
        f" python -m tf2onnx.convert --saved-model {file.parent} --opset 18 --output model.onnx"
    )


def export(
    source: Path, out: Path, pictures: Sequence[Image], size: Sequence[int] | None = None
) -> Original:
    """Write the model in *source* to ``model.onnx`` in the empty folder *out*, and run the original on *pictures*.

    Args:
        source: A file or folder of which `has_weights` is true.
        out: Gets the model.
        pictures: RGB pictures, at least one.
        size: Width and height of its pictures, for a model of Keras that leaves them free.

    Raises:
        FluxdropError: Kind ``model``, when a package is missing, or the libraries cannot load or export the model.
    """
    keras_file = keras_export.keras_file(source)
    if keras_file is None:
        _check_packages(source)
        module, arguments = "torch_export", [str(source.resolve()), str(out)]
    else:
        if keras_export.backend() is None:
            refuse_pickles(keras_file)
        module, arguments = "keras_export", [str(keras_file.resolve()), str(out)]
        arguments += map(str, size or ())
    (out / "pictures").mkdir()
    for index, picture in enumerate(pictures):
        picture.save(out / "pictures" / f"{index:06}.png")
    answer_file = out / "answer.json"
    command = [sys.executable, "-m", f"fluxdrop.predict.origin.{module}", *arguments]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    ended = subprocess.run(
        command, env=os.environ | offline, capture_output=True, text=True, check=False
    )
    if not answer_file.is_file():
        lines = ended.stderr.strip().splitlines()[-_LOG_LINES:]
        raise FluxdropError(
            f"{source} cannot be exported: the process that does it ended with {ended.returncode}"
            f" ({' '.join(lines) or 'no message'})",
            hint="There may be too little memory for it.",
            kind="model",
        )
    answer = msgspec.json.decode(answer_file.read_bytes(), type=Answer)
    if answer.error is not None:
        raise FluxdropError(
            f"{source} cannot be exported to ONNX: {answer.error}",
            hint=_keras_hint(keras_file)
            if keras_file
            else "Export it in Python with torch.onnx.export, put model.onnx into the folder and add it again.",
            kind="model",
        )
    with np.load(out / "reference.npz") as reference:
        outputs, inputs = reference["outputs"], reference["inputs"]
    return Original(
        answer.library,
        answer.processor,
        answer.resampler,
        answer.labels,
        outputs,
        inputs,
        answer.table,
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
