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
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.files.transient import naming
from fluxdrop.predict.bundle import NATIVE, Bundle, known_bundles, load_bundle, native_files
from fluxdrop.predict.choose import open_engine
from fluxdrop.predict.classify import label_probabilities
from fluxdrop.predict.compiler.compile import check_fit, compile_bundle
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.predict.parity import TOLERANCE, relative, samples
from fluxdrop.provision import find_julia

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TOP = ("output", "output_name")


class Answer(NamedTuple):
    """What a model gives for the samples; of a native Flux model with what ran it."""

    raw: NDArray[np.float32]
    engine: EngineInfo | None


class Added(NamedTuple):
    """A bundle that was added, what ran it, and how far it was off onnxruntime: a native Flux model has nothing that
    it could be compared with.
    """

    bundle: Bundle
    engine: EngineInfo
    difference: float | None


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

    *options* are keys of model.toml's ``[input]`` table, ``output`` and ``output_name``; what is
    None is taken from the folder's model.toml or from the model. The bundle is run first, and one
    of ONNX compiled and compared with onnxruntime. Raises FluxdropError, with nothing changed, when
    any of that fails.
    """
    folder = source if source.is_dir() else None
    name = _new_name(name or (source.name if folder else source.stem), root)
    with _staged(root.models) as staging:
        copy = staging / name
        copy.mkdir()
        try:
            _copy(source, copy)
            answer = _write_spec(source, copy, settings, labels, options)
            added = _proven(load_bundle(str(copy)), settings, answer)
        except FluxdropError as error:
            # It speaks of the copy, which is about to go.
            error.message = _of_original(error.message, copy, source)
            error.hint = _of_original(error.hint, copy, source)
            raise
        if added.engine.note is not None:
            note = _of_original(added.engine.note, copy, source)
            added = added._replace(engine=msgspec.structs.replace(added.engine, note=note))
        durable.sync_all([path for path in copy.iterdir() if path.is_file()], [copy])
        copy.rename(root.models / name)
        durable.sync_folder(root.models)
    return added._replace(bundle=load_bundle(name, root.models))


def _new_name(name: str, root: Root) -> str:
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
    return name


def _of_original(words: str, copy: Path, source: Path) -> str:
    if source.is_file():
        words = words.replace(str(copy / "model.onnx"), str(source))
    if not (source / "model.toml").is_file():
        words = words.replace(str(copy / "model.toml"), "What the options say")
    return words.replace(str(copy), str(source))


def _copy(source: Path, copy: Path) -> None:
    """The files of the model *source* into the bundle's folder *copy*, without a model.toml."""
    native, onnx = source / NATIVE, source / "model.onnx" if source.is_dir() else source
    if native.is_file():
        if onnx.exists():
            raise FluxdropError(
                f"{source} has both model.onnx and {NATIVE}",
                hint="Keep the one that is to run.",
                kind="model",
            )
        for path in native_files(source):
            shutil.copyfile(path, copy / path.name)
    elif onnx.is_file():
        (copy / "model.onnx").write_bytes(_whole(onnx))
    elif source.is_dir():
        raise FluxdropError(
            f"{source} has neither model.onnx nor {NATIVE}",
            hint="Give an ONNX file, or a folder with one of these.",
            kind="model",
        )
    else:
        raise FluxdropError(f"There is no file {source}", kind="model")
    if (source / "samples").is_dir():
        shutil.copytree(source / "samples", copy / "samples")


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
        with naming(models):
            yield staging
    finally:
        shutil.rmtree(staging)


def _write_spec(
    source: Path,
    bundle: Path,
    settings: Settings,
    labels: list[str] | None,
    options: dict[str, Any],
) -> Answer:
    given = {key: value for key, value in options.items() if value is not None}
    table = _from_model(bundle / "model.onnx") if (bundle / "model.onnx").exists() else {}
    top: dict[str, Any] = {}
    described = source / "model.toml"
    if described.is_file():
        try:
            top = msgspec.toml.decode(described.read_bytes())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FluxdropError(f"{described} is wrong: {error}", kind="model") from error
        own = top.pop("input", {})
        if not isinstance(own, dict):
            raise FluxdropError(f"{described} is wrong: its input is no table", kind="model")
        table |= own
    top |= {key: given.pop(key) for key in _TOP if key in given}
    table |= given
    if labels is not None:
        top["labels"] = labels
    return _complete(bundle, settings, top, table)


def _from_model(onnx_file: Path) -> dict[str, Any]:
    """Size, mode and layout as the model's own input has them, as far as it tells."""
    from fluxdrop.predict.compiler.source import UnsoundError, parse, value_shape

    try:
        model = parse(onnx_file.read_bytes())
    except UnsoundError as error:
        raise FluxdropError(
            f"{onnx_file} is not a sound ONNX model: {error}", kind="model"
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


def _complete(
    bundle: Path, settings: Settings, top: dict[str, Any], table: dict[str, Any]
) -> Answer:
    if "size" not in table:
        raise FluxdropError(
            "The model does not tell the size of its pictures",
            hint="Give --size WIDTHxHEIGHT.",
            kind="model",
        )
    guessed = {"labels": ["?"], "output": "logits"} | top
    (bundle / "model.toml").write_text(_toml(guessed, table), encoding="utf-8")
    answer = _first_answer(load_bundle(str(bundle)), settings)
    raw = answer.raw
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
            hint="Give as many with --labels, in the model's order, or a file that has them.",
            kind="model",
        )
    sums_to_one = bool(np.allclose(raw.sum(axis=1), 1, atol=1e-3) and raw.min() >= 0)
    top.setdefault("output", "probabilities" if sums_to_one else "logits")
    (bundle / "model.toml").write_text(_toml(top, table), encoding="utf-8")
    return answer


def _first_answer(bundle: Bundle, settings: Settings) -> Answer:
    """What the model gives before it is known to have as many numbers as there are labels."""
    batch = samples(bundle, settings)
    if bundle.kind == "flux":
        with closing(open_engine(settings, bundle)) as engine:
            return Answer(engine.predict(batch), engine.info)
    check_fit(bundle)
    try:
        return Answer(OnnxruntimeEngine(bundle).predict(batch), None)
    except FluxdropError:
        if settings.engine != "onnxruntime":
            # It names the node where there is an operator that neither knows.
            compile_bundle(bundle)
        raise


def _toml(top: dict[str, Any], table: dict[str, Any]) -> str:
    # A JSON string or list of numbers and strings is also one of TOML; there are no other keys that are right.
    lines = [f"{key} = {json.dumps(value, default=str)}" for key, value in top.items()]
    lines += ["", "[input]"]
    lines += [f"{key} = {json.dumps(value, default=str)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _proven(bundle: Bundle, settings: Settings, answer: Answer) -> Added:
    for row in answer.raw:
        label_probabilities(row, bundle)
    if answer.engine is not None:
        return Added(bundle, answer.engine, None)
    if settings.engine == "auto" and find_julia() is not None:
        # Running on Flux is the point; who wants onnxruntime for it says so with --engine.
        settings = msgspec.structs.replace(settings, engine="julia")
    with closing(open_engine(settings, bundle)) as engine:
        off = relative(answer.raw, engine.predict(samples(bundle, settings)))
        if off > TOLERANCE:
            raise FluxdropError(
                f"{bundle.onnx.name} gives other numbers on {engine.info.backend} than on onnxruntime:"
                f" off by {off:.2g} of the largest",
                hint="This is a defect of fluxdrop; please report it with the model.",
                kind="model",
            )
        return Added(bundle, engine.info, off)
