"""Find the model in what was given to ``model add``."""

from __future__ import annotations

from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.origin.weights import has_weights, refuse_pickles

_OPTIMUM = Path("onnx") / "model.onnx"
"""Where Optimum and the hub have the ONNX file of a folder with other weights."""


def onnx_files(folder: Path) -> list[Path]:
    """Return the one ONNX file by whose name it is the model of *folder*, else all; none if it is no folder."""
    for file in (folder / "model.onnx", folder / _OPTIMUM):
        if file.is_file():
            return [file]
    return sorted(file for file in folder.glob("*.onnx") if file.is_file())


def onnx_file(source: Path) -> Path | None:
    """Return the ONNX file that *source* is or has; None for a folder of weights, which has to be exported.

    In a folder that is ``model.onnx``, else ``onnx/model.onnx``, else the only file of ONNX.

    Raises:
        FluxdropError: Kind ``model``, when there is no model, none that can be used, or more than one.
    """
    if source.is_file() and source.suffix not in (".keras", ".safetensors"):
        refuse_pickles(source)
        return source
    files = onnx_files(source)
    if len(files) == 1:
        return files[0]
    if not source.exists():
        raise FluxdropError(f"There is no file {source}", kind="model")
    if not source.is_dir() and not source.is_file():
        raise FluxdropError(f"{source} is neither a regular file nor a folder", kind="model")
    if files:
        raise FluxdropError(
            f"{source} has several ONNX files: {', '.join(file.name for file in files)}",
            hint="Give the file that is meant, or rename it to model.onnx.",
            kind="model",
        )
    if has_weights(source):
        return None
    refuse_pickles(source)
    if source.is_file():
        raise FluxdropError(
            f"{source} has weights only, and not the network that they are for",
            hint="Give the folder that has it and config.json, as save_pretrained writes it.",
            kind="model",
        )
    raise FluxdropError(
        f"{source} has neither model.onnx, flux_model.jl nor model.safetensors",
        hint="Give an ONNX file, or a folder with one of these.",
        kind="model",
    )
