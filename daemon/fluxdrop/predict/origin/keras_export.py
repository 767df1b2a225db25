"""Write a .keras file as ONNX: ``python -m fluxdrop.predict.origin.keras_export FILE OUT [WIDTH HEIGHT]``.

It runs in a process of its own, and answers as `fluxdrop.predict.origin.torch_export` does: the pictures in
``OUT/pictures`` go through Keras' own resizing and ``predict``. Code in the file is not loaded: ``safe_mode`` stays on.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.origin import onnx_metadata
from fluxdrop.predict.origin.facts import GUESSED
from fluxdrop.predict.origin.torch_export import Answer, answer_with

SUFFIX = ".keras"

_OPSET = 18
_SAFE_VERSION = (3, 13, 2)
"""Earlier versions run code or read other files although safe_mode is on (CVE-2026-1462, CVE-2026-1669)."""
_EXPORTERS = {
    "torch": ("torch", "onnxscript"),
    "tensorflow": ("tensorflow", "tf2onnx"),
    "jax": ("jax", "jax2onnx"),
}
"""The packages that Keras' export to ONNX needs, by backend."""


def keras_file(source: Path) -> Path | None:
    """Return the .keras file that *source* is, or the only one that the folder *source* has; else None."""
    if source.is_dir():
        files = sorted(source.glob(f"*{SUFFIX}"))
        return files[0] if len(files) == 1 else None
    return source if source.suffix == SUFFIX and source.is_file() else None


def backend() -> str | None:
    """Return the backend of Keras that can export here: the one in KERAS_BACKEND, else the first; None if none can."""
    if find_spec("keras") is None:
        return None
    usable = [name for name, needed in _EXPORTERS.items() if all(map(find_spec, needed))]
    wanted = os.environ.get("KERAS_BACKEND")
    return wanted if wanted in usable else next(iter(usable), None)


def _export(file: Path, out: Path, size: tuple[int, int] | None) -> Answer:
    """Export *file* to *out*; *size* is the width and height of its pictures where it leaves them free."""
    import keras
    import numpy as np
    import onnx
    from PIL import Image

    if tuple(map(int, re.findall(r"\d+", keras.__version__)[:3])) < _SAFE_VERSION:
        oldest = ".".join(map(str, _SAFE_VERSION))
        raise FluxdropError(
            f"Keras {keras.__version__} may run its code; {oldest} or newer is needed"
        )
    model = keras.saving.load_model(file, compile=False, safe_mode=True)
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise FluxdropError("it does not have pictures as its only input")
    shape = list(model.inputs[0].shape)
    last = shape[3] in (1, 3)
    channels, free = shape[3 if last else 1], None in (shape[1:3] if last else shape[2:4])
    height, width = shape[1:3] if last else shape[2:4]
    if size is not None and free:
        width, height = size
    if channels not in (1, 3) or None in (width, height):
        raise FluxdropError("it leaves the size of its pictures free (give --size)")
    resizing = keras.layers.Resizing(height, width, data_format="channels_last")

    def pixels(path: Path) -> Any:
        with Image.open(path) as picture:
            array = np.asarray(picture.convert("L" if channels == 1 else "RGB"), dtype=np.float32)
        return array.reshape(1, *array.shape[:2], channels)

    def ordered(array: Any) -> Any:
        return array if last else array.transpose(0, 3, 1, 2)

    fixed = (height, width, channels) if last else (channels, height, width)
    _write_onnx(model, fixed, out / "model.onnx")
    begins = onnx_metadata.read(onnx.load(out / "model.onnx", load_external_data=False), file.name)
    integers = "int" in str(model.inputs[0].dtype)
    scale = 1.0 if integers else begins.input.get("scale", 255.0)
    pictures = [pixels(path) for path in sorted((out / "pictures").iterdir())]
    resized = [keras.ops.convert_to_numpy(resizing(picture)) for picture in pictures]
    inputs = np.concatenate([ordered(picture) for picture in resized]) / np.float32(scale)
    given = np.rint(inputs).astype(model.inputs[0].dtype) if integers else inputs
    outputs = model.predict(given, verbose=0)
    np.savez(
        out / "reference.npz",
        outputs=np.asarray(outputs, dtype=np.float32).reshape(len(inputs), -1),
        inputs=inputs,
    )
    table: dict[str, tuple[Any, str]] = {
        "resampler": ("opencv", f"{GUESSED}image_dataset_from_directory of Keras resizes so")
    }
    return Answer(
        library=f"keras {keras.__version__} on {keras.backend.backend()}",
        processor="the layer Resizing, predict",
        table=table,
    )


def _write_onnx(model: Any, shape: tuple[int, ...], path: Path) -> None:
    """Export *model* with inputs of *shape*, for any number of pictures if that is possible."""
    import keras
    import numpy as np

    dtype = model.inputs[0].dtype
    model(np.zeros((1, *shape), dtype))  # Keras exports a model only after a call.
    for batch in (None, 1):
        signature = [keras.InputSpec(dtype=dtype, shape=(batch, *shape), name="pictures")]
        try:
            model.export(
                str(path),
                format="onnx",
                verbose=False,
                opset_version=_OPSET,
                input_signature=signature,
            )
        # The exporters raise any exception where they meet what they do not know.
        except Exception:
            if batch is not None:
                raise
        else:
            return


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = backend() or ""
    _size = (int(sys.argv[3]), int(sys.argv[4])) if len(sys.argv) > 4 else None
    answer_with(lambda: _export(Path(sys.argv[1]), Path(sys.argv[2]), _size), Path(sys.argv[2]))
