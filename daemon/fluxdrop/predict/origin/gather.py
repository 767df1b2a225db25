"""Collect what is known of a model: in its file, beside it, in its model.toml and in its library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.files.regular import open_given
from fluxdrop.predict.label_file import read_labels
from fluxdrop.predict.origin import huggingface, onnx_metadata, paddle, teachable_machine, timm
from fluxdrop.predict.origin.facts import (
    DESCRIPTION,
    GUESSED,
    Facts,
    from_table,
    read_json,
    reading,
)
from fluxdrop.predict.origin.locate import onnx_files
from fluxdrop.predict.origin.weights import Original

if TYPE_CHECKING:
    from onnx import ModelProto

    from fluxdrop.predict.bundle import BundleSpec

_LABEL_FILES = ("labels.txt", "labels.csv", "labels.json", "classes.txt")
_PIXELS = ("scale", "mean", "std")
_MAX_BYTES = 16 << 20


def gather(folder: Path, model: ModelProto | None, original: Original | None) -> Facts:
    """Return the facts of a model; a file beside it takes precedence over its metadata.

    Args:
        folder: What was given: a folder, or a file, whose neighbours may belong to other models and are not read.
        model: The ONNX model; None for a native Flux model.
        original: What its library knows of it, if it was exported here.

    Raises:
        FluxdropError: Kind ``model``, when a file is wrong, or says that the model is of a task that is not served.
    """
    facts = Facts()
    if model is not None:
        file = folder
        if folder.is_dir():
            # There is none where the library exported it.
            file = next(iter(onnx_files(folder)), folder / "model.onnx")
        with reading(file):
            facts.update(onnx_metadata.read(model, file.name))
    for key, (value, source) in (original.table if original is not None else {}).items():
        facts.take(key, value, source)
    if not folder.is_dir():
        return facts
    if original is not None and original.labels:
        facts.name_classes(original.labels, f"{GUESSED}the names that {original.library} has")
    _read_label_file(folder, facts)
    config = read_json(folder / huggingface.CONFIG)
    if config is not None and timm.is_config(config):
        with reading(folder / huggingface.CONFIG):
            facts.update(timm.read(folder, config))
    elif config is not None and huggingface.is_config(config):
        facts.update(huggingface.read(folder, config))
    if original is not None and original.resampler:
        facts.take("resampler", original.resampler, f"{original.library}: {original.processor}")
    taught = teachable_machine.read(folder)
    if taught is not None:
        facts.update(taught)
    with reading(folder / paddle.CONFIG):
        described = paddle.read(folder)
    if described is not None:
        facts.update(described)
    if model is not None and original is None:
        _yield_to_graph(facts, model)
        _yield_to_pixels(facts, model)
    facts.update(_described(folder / DESCRIPTION))
    return facts


def _read_label_file(folder: Path, facts: Facts) -> None:
    """Add the labels of a file beside the model, as Custom Vision, Teachable Machine and others write it."""
    for name in _LABEL_FILES:
        if os.path.lexists(folder / name):
            found = read_labels(folder / name)
            facts.say("labels", found.labels, name)
            facts.notes += found.warnings
            return


def add_guesses(facts: Facts) -> None:
    """Note of *facts* what nothing states about the pixels, and that the defaults are taken."""
    if not any(key in facts.input for key in _PIXELS):
        facts.origin["scale"] = (
            f"{GUESSED}nothing says what the pixels become, so they go from 0 to 1"
        )


def guesses(spec: BundleSpec) -> list[str]:
    """Return a sentence for each key of *spec* that was guessed."""
    return [
        f"{key} {'were' if key == 'labels' else 'was'} {source}"
        for key, source in spec.origin.items()
        if source.startswith(GUESSED)
    ]


def _yield_to_graph(facts: Facts, model: ModelProto) -> None:
    """Leave out what the files say of the kind of output where the graph itself ends in a softmax or a sigmoid.

    The files are about the network; whoever exported it may have added one.
    """
    from fluxdrop.predict.graph_end import graph_end

    if len(model.graph.output) != 1:
        return
    end = graph_end(model, model.graph.output[0].name)
    dropped = ["activation"] if end == "sigmoid" else []
    if end in ("softmax", "sigmoid") and facts.top.get("output") == "logits":
        dropped.append("output")
    for key in dropped:
        facts.top.pop(key, None)
        facts.origin.pop(key, None)


def _yield_to_pixels(facts: Facts, model: ModelProto) -> None:
    """Leave out what the files say of the pixels where the graph takes them as integers, and does it itself."""
    from fluxdrop.predict.compiler.source import integer_type

    if any(integer_type(item) is not None for item in model.graph.input):
        for key in _PIXELS:
            facts.input.pop(key, None)
            facts.origin.pop(key, None)


def _described(path: Path) -> Facts:
    """Return what the model.toml in *path* says; nothing if there is none.

    Raises:
        FluxdropError: Kind ``model``, when it is wrong.
    """
    if not os.path.lexists(path):
        return Facts()
    try:
        with open_given(path) as file:
            top: dict[str, Any] = msgspec.toml.decode(file.read(_MAX_BYTES))
    except OSError as error:
        raise FluxdropError(f"{path} cannot be read: {error.strerror}", kind="model") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FluxdropError(f"{path} is wrong: {error}", kind="model") from error
    table = top.pop("input", {})
    if not isinstance(table, dict):
        raise FluxdropError(f"{path} is wrong: its input is not a table", kind="model")
    return from_table(top, table, path.name)
