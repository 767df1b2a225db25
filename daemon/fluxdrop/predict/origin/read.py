"""Collect the facts that lie beside a model and in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fluxdrop.predict.origin import huggingface, onnx_metadata, teachable_machine, timm
from fluxdrop.predict.origin.facts import Facts, read_json

if TYPE_CHECKING:
    from onnx import ModelProto

LABEL_FILES = ("labels.txt", "classes.txt", "labels.json")


def read(folder: Path | None, model: ModelProto | None, file: str) -> Facts:
    """Return the facts of a model; a file beside it takes precedence over its metadata.

    Args:
        folder: The folder that was given; None if a file was, whose neighbours may belong to other models.
        model: The ONNX model; None for a native Flux model.
        file: The name of the model's file, for the sources.

    Raises:
        FluxdropError: Kind ``model``, when a file is wrong, or says that the model is of a task that is not served.
    """
    facts = onnx_metadata.read(model, file) if model is not None else Facts()
    if folder is None:
        return facts
    config = read_json(folder / huggingface.CONFIG)
    if config is not None and timm.is_config(config):
        facts.update(timm.read(folder, config))
    elif config is not None and huggingface.is_config(config):
        facts.update(huggingface.read(folder, config))
    taught = teachable_machine.read(folder)
    if taught is not None:
        facts.update(taught)
    return facts
