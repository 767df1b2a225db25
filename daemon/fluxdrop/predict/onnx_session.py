"""Sessions of onnxruntime."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

from fluxdrop.telemetry import import_onnxruntime


def open_session(model: bytes | Path, options: Any) -> Any:
    """Return a session of onnxruntime for *model* on the CPU, optimised as *options* say.

    One optimisation is left out where it could change numbers: Pad_Fusion makes padding by 0 part of the MaxPool
    after it, which pads by the lowest number instead (onnxruntime 1.31).

    Raises:
        Exception: As onnxruntime raises it, when it does not take the model.
    """
    ort = import_onnxruntime()
    source = model if isinstance(model, bytes) else os.fspath(model)
    unsound = ["Pad_Fusion"] if mentions(model, b"MaxPool") else []
    return ort.InferenceSession(
        source, options, providers=["CPUExecutionProvider"], disabled_optimizers=unsound
    )


def mentions(model: bytes | Path, name: bytes) -> bool:
    """Return whether the bytes of *model* have *name* anywhere, as they do if it has an operator of that name."""
    if isinstance(model, bytes):
        return name in model
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(name) >= 0
