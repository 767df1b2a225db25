"""Adding models: from an ONNX file, or a folder, to a bundle that is proven to run."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from fluxdrop import durable
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.layout import Root
from fluxdrop.predict.bundle import Bundle, known_bundles, load_bundle
from fluxdrop.predict.choose import open_engine
from fluxdrop.predict.classify import label_probabilities
from fluxdrop.predict.compiler.compile import check_fit
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.predict.parity import TOLERANCE, difference, samples
from fluxdrop.provision import find_julia

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Added(NamedTuple):
    """A bundle that was added: what ran it, and how far it was off onnxruntime."""

    bundle: Bundle
    engine: EngineInfo
    difference: float


def add_model(
    root: Root,
    source: Path,
    settings: Settings,
    *,
    name: str | None,
    labels: list[str] | None,
    options: dict[str, Any],
) -> Added:
    """Make a bundle of *source*, an ONNX file or a bundle's folder, and add it to *root*.

    *options* are keys of model.toml's ``[input]`` table, and ``output``; what is None is taken from
    the folder's model.toml or from the model. The bundle is compiled, run, and compared with
    onnxruntime first. Raises FluxdropError, with nothing changed, when any of that fails.
    """
    folder = source if source.is_dir() else None
    onnx = source / "model.onnx" if folder else source
    if not onnx.is_file():
        raise FluxdropError(f"There is no file {onnx}", kind="model")
    name = name or (source.name if folder else source.stem)
    if not _NAME.fullmatch(name):
        raise FluxdropError(
            f"{name!r} cannot be a model's name",
            hint="Give --name with letters, digits, dots, dashes and underscores.",
            kind="model",
        )
    if name in known_bundles(root.models):
        raise FluxdropError(
            f"There is a model {name} already", hint="Give another --name.", kind="model"
        )
    with _staged(root.models) as staging:
        bundle_folder = staging / name
        bundle_folder.mkdir()
        (bundle_folder / "model.onnx").write_bytes(_whole(onnx))
        if folder and (folder / "samples").is_dir():
            shutil.copytree(folder / "samples", bundle_folder / "samples")
        try:
            _write_spec(folder, bundle_folder, labels, options)
            added = _proven(load_bundle(str(bundle_folder)), settings)
        except FluxdropError as error:
            # It speaks of the copy, which is about to go.
            error.message = _of_original(error.message, bundle_folder, onnx)
            raise
        if added.engine.note is not None:
            note = _of_original(added.engine.note, bundle_folder, onnx)
            added = added._replace(engine=msgspec.structs.replace(added.engine, note=note))
        durable.sync_all([bundle_folder / "model.onnx"], [bundle_folder])
        bundle_folder.rename(root.models / name)
        durable.sync_folder(root.models)
    return added._replace(bundle=load_bundle(name, root.models))


def _of_original(words: str, copy: Path, onnx: Path) -> str:
    return words.replace(str(copy / "model.onnx"), str(onnx)).replace(f"{copy}/", "")


def _whole(onnx: Path) -> bytes:
    from fluxdrop.predict.compiler.source import ExternalDataError, one_file

    try:
        return one_file(onnx)
    except ExternalDataError as error:
        raise FluxdropError(f"{onnx} cannot be used: {error}", kind="model") from error


@contextmanager
def _staged(models: Path) -> Iterator[Path]:
    models.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".adding-", dir=models))
    try:
        yield staging
    finally:
        shutil.rmtree(staging)


def _write_spec(
    folder: Path | None, bundle: Path, labels: list[str] | None, options: dict[str, Any]
) -> None:
    given = {key: value for key, value in options.items() if value is not None}
    output = given.pop("output", None)
    top: dict[str, Any] = {}
    table: dict[str, Any] = {}
    if folder is not None and (folder / "model.toml").is_file():
        try:
            top = msgspec.toml.decode((folder / "model.toml").read_bytes())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FluxdropError(
                f"{folder / 'model.toml'} is wrong: {error}", kind="model"
            ) from error
        table = top.pop("input", {})
    else:
        table = _from_model(bundle / "model.onnx")
    table |= given
    if labels is not None:
        top["labels"] = labels
    if output is not None:
        top["output"] = output
    _complete(bundle, top, table)


def _from_model(onnx_file: Path) -> dict[str, Any]:
    """Size, mode and layout as the model's own input has them, as far as it tells."""
    from fluxdrop.predict.compiler.source import UnsoundError, parse, value_shape

    try:
        model = parse(onnx_file.read_bytes())
    except UnsoundError as error:
        raise FluxdropError(
            f"{onnx_file.name} is not a sound ONNX model: {error}", kind="model"
        ) from error
    constants = {item.name for item in model.graph.initializer}
    for item in model.graph.input:
        shape = value_shape(item)
        if item.name in constants or shape is None or len(shape) != 4:
            continue
        channels_last = shape[3] in (1, 3) and shape[1] not in (1, 3)
        height, width = shape[1:3] if channels_last else shape[2:4]
        channels = shape[3] if channels_last else shape[1]
        found: dict[str, Any] = {
            "mode": "L" if channels == 1 else "RGB",
            "layout": "NHWC" if channels_last else "NCHW",
        }
        return found | ({"size": [width, height]} if min(width, height) > 0 else {})
    return {}


def _complete(bundle: Path, top: dict[str, Any], table: dict[str, Any]) -> None:
    if "size" not in table:
        raise FluxdropError(
            "The model does not tell the size of its pictures",
            hint="Give --size WIDTHxHEIGHT.",
            kind="model",
        )
    guessed = {"labels": ["?"], "output": "logits"} | top
    (bundle / "model.toml").write_text(_toml(guessed, table), encoding="utf-8")
    loaded = load_bundle(str(bundle))
    check_fit(loaded)
    raw = OnnxruntimeEngine(loaded).predict(samples(loaded, Settings()))
    if raw.ndim != 2:
        raise FluxdropError(
            f"The model gives an output of shape {list(raw.shape[1:])} a picture, not one number a label",
            hint="Only image classifiers can be added.",
            kind="model",
        )
    top.setdefault("labels", [str(index) for index in range(raw.shape[1])])
    if len(top["labels"]) != raw.shape[1]:
        raise FluxdropError(
            f"The model gives {raw.shape[1]} numbers a picture, and there are {len(top['labels'])} labels",
            hint="Give as many with --labels, in the model's order.",
            kind="model",
        )
    sums_to_one = bool(np.allclose(raw.sum(axis=1), 1, atol=1e-3) and raw.min() >= 0)
    top.setdefault("output", "probabilities" if sums_to_one else "logits")
    (bundle / "model.toml").write_text(_toml(top, table), encoding="utf-8")


def _toml(top: dict[str, Any], table: dict[str, Any]) -> str:
    # A JSON string or list of numbers and strings is also one of TOML.
    lines = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
    lines += ["", "[input]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _proven(bundle: Bundle, settings: Settings) -> Added:
    batch = samples(bundle, settings)
    if settings.engine == "auto" and find_julia() is not None:
        # Running on Flux is the point; who wants onnxruntime for it says so with --engine.
        settings = msgspec.structs.replace(settings, engine="julia")
    with closing(open_engine(settings, bundle)) as engine:
        for row in engine.predict(batch):
            label_probabilities(row, bundle)
        off = difference(engine, bundle, batch)
        if off > TOLERANCE:
            raise FluxdropError(
                f"{bundle.onnx.name} gives other numbers on {engine.info.backend} than on onnxruntime:"
                f" off by {off:.2g} of the largest",
                hint="This is a defect of fluxdrop; please report it with the model.",
                kind="model",
            )
        return Added(bundle, engine.info, off)
