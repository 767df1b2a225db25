"""Add models: turn an ONNX file, or a folder, into a bundle that was run and verified."""

from __future__ import annotations

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
from fluxdrop.predict.answer import answer_of
from fluxdrop.predict.answer_kind import complete_answer
from fluxdrop.predict.bundle import NATIVE, Bundle, known_bundles, load_bundle, native_files
from fluxdrop.predict.choose_engine import open_engine
from fluxdrop.predict.compiler.compile import check_fit, compile_bundle, float32_form
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.predict.parity import samples
from fluxdrop.predict.unserved import refuse_unserved
from fluxdrop.predict.verify import compare
from fluxdrop.preprocess import crop_percentage
from fluxdrop.provision import find_julia
from fluxdrop.toml_text import toml_value

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ANSWER_KEYS = ("output", "activation", "thresholds", "unit", "value_name")
_TOP_LEVEL_KEYS = ("output_name", *_ANSWER_KEYS)


class SampleOutput(NamedTuple):
    """A model's output for the samples, and, for a native Flux model, the engine that computed it."""

    raw: NDArray[np.float32]
    engine: EngineInfo | None


class AddedModel(NamedTuple):
    """A bundle that was added, and the engine that ran it."""

    bundle: Bundle
    engine: EngineInfo
    difference: float | None
    """The `relative_difference` from onnxruntime; None for a native Flux model, which has no reference."""
    remark: str | None = None
    """Why the difference is large; None if it is not."""


def add_model(
    root: Root,
    source: Path,
    settings: Settings,
    *,
    name: str | None,
    labels: list[str] | None,
    options: dict[str, Any],
) -> AddedModel:
    """Make a bundle from *source* and add it to *root*.

    The bundle is run first; an ONNX model is also compiled and compared with onnxruntime.

    Args:
        root: The root whose models folder gets the bundle.
        source: An ONNX file, or a folder with a model and perhaps a model.toml and samples/.
        settings: The engine that runs the bundle, and its limits.
        name: The bundle's name; None for the name of *source*.
        labels: The names of the classes, in the model's order; None to take them from the folder's
            model.toml, or to number them.
        options: Keys of model.toml's ``[input]`` table, ``crop_pct`` (see `crop_percentage.resolve`), ``output`` and
            ``output_name``. A value of None is taken from the folder's model.toml, or else from the model.

    Raises:
        FluxdropError: When any step fails; *root* is unchanged then.
    """
    folder = source if source.is_dir() else None
    name = _check_name(name or (source.name if folder else source.stem), root)
    with _staging_folder(root.models) as staging:
        copy = staging / name
        copy.mkdir()
        try:
            _copy_files(source, copy)
            output = _write_spec(source, copy, settings, labels, options)
            added = _verify(load_bundle(str(copy)), settings, output)
        except FluxdropError as error:
            # The error names the copy, which is about to be removed.
            error.message = _name_source(error.message, copy, source)
            error.hint = _name_source(error.hint, copy, source)
            raise
        if added.engine.note is not None:
            note = _name_source(added.engine.note, copy, source)
            added = added._replace(engine=msgspec.structs.replace(added.engine, note=note))
        files = [path for path in copy.rglob("*") if path.is_file()]
        durable.sync_all(files, sorted({path.parent for path in files}))
        copy.rename(root.models / name)
        durable.sync_folder(root.models)
    return added._replace(bundle=load_bundle(name, root.models))


def _check_name(name: str, root: Root) -> str:
    """Return *name*; raise if it is not a valid bundle name or is taken."""
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


def _name_source(text: str, copy: Path, source: Path) -> str:
    """Replace the paths of the copy in *text* by those of the *source*."""
    if source.is_file():
        text = text.replace(str(copy / "model.onnx"), str(source))
    if not (source / "model.toml").is_file():
        text = text.replace(str(copy / "model.toml"), "What the options say")
    return text.replace(str(copy), str(source))


def _copy_files(source: Path, copy: Path) -> None:
    """Copy the model's files and samples from *source* to the folder *copy*, but no model.toml."""
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
        (copy / "model.onnx").write_bytes(_read_onnx(onnx))
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


def _read_onnx(onnx: Path) -> bytes:
    """Return the ONNX file with its external tensors embedded."""
    from fluxdrop.predict.compiler.source import ExternalDataError, embed_external_data

    try:
        return embed_external_data(onnx)
    except ExternalDataError as error:
        raise FluxdropError(f"{onnx} cannot be used: {error}", kind="model") from error


@contextmanager
def _staging_folder(models: Path) -> Iterator[Path]:
    """Make a temporary folder in *models*, which is removed with what is left in it."""
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
) -> SampleOutput:
    """Write the bundle's model.toml, and return the model's output for the samples.

    The options take precedence over the source's model.toml, and that over what the model declares.
    """
    given = {key: value for key, value in options.items() if value is not None}
    table: dict[str, Any] = {}
    top: dict[str, Any] = {}
    described = source / "model.toml"
    if described.is_file():
        try:
            top = msgspec.toml.decode(described.read_bytes())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FluxdropError(f"{described} is wrong: {error}", kind="model") from error
        own = top.pop("input", {})
        if not isinstance(own, dict):
            raise FluxdropError(f"{described} is wrong: its input is not a table", kind="model")
        table |= own
    top |= {key: given.pop(key) for key in _TOP_LEVEL_KEYS if key in given}
    if (bundle / "model.onnx").exists():
        table = _derive_input(bundle / "model.onnx", "output_name" in top) | table
    crop_percentage.resolve(table, given)
    if labels is not None:
        top["labels"] = labels
    return _complete_spec(bundle, settings, top, table)


def _derive_input(onnx_file: Path, has_output: bool) -> dict[str, Any]:
    """Derive size, mode and layout from the model's declared input, as far as that is possible.

    A model that says itself that it is a detector or the like is refused, unless *has_output*: one of its outputs is
    named.
    """
    from fluxdrop.predict.compiler.shapes import value_shape
    from fluxdrop.predict.compiler.source import InvalidModelError, integer_type, parse

    try:
        model = parse(onnx_file.read_bytes())
    except InvalidModelError as error:
        raise FluxdropError(
            f"{onnx_file} is not a valid ONNX model: {error}", kind="model"
        ) from error
    if not has_output:
        refuse_unserved(onnx_file, model)
    for item in model.graph.input:
        shape = value_shape(item)
        if shape is None or len(shape) != 4:
            continue
        channels_last = shape[3] in (1, 3) and shape[1] not in (1, 3)
        height, width = shape[1:3] if channels_last else shape[2:4]
        channels = shape[3] if channels_last else shape[1]
        found: dict[str, Any] = {
            "mode": "L" if channels == 1 else "RGB",
            "layout": "NHWC" if channels_last else "NCHW",
        }
        if (kind := integer_type(item)) is not None:
            # Such a model takes the pixels as they are; int8 only if 128 is subtracted.
            found |= {"scale": 1.0} | ({"mean": [128.0]} if kind == "int8" else {})
        return found | ({"size": [width, height]} if min(width, height) > 0 else {})
    return {}


def _complete_spec(
    bundle: Path, settings: Settings, top: dict[str, Any], table: dict[str, Any]
) -> SampleOutput:
    """Run the model to find what *top* leaves open, and write the complete model.toml."""
    if "size" not in table:
        raise FluxdropError(
            "The model does not declare the size of its pictures",
            hint="Give --size WIDTHxHEIGHT.",
            kind="model",
        )
    # Until the kind of output is known, labels only say how many numbers the right output has.
    trial = {key: value for key, value in top.items() if key not in _ANSWER_KEYS}
    trial["output"] = "multi-label" if "labels" in top else "embedding"
    (bundle / "model.toml").write_text(spec_text(trial, table), encoding="utf-8")
    output = _run_samples(load_bundle(str(bundle)), settings)
    complete_answer(load_bundle(str(bundle)), top, output.raw)
    (bundle / "model.toml").write_text(spec_text(top, table), encoding="utf-8")
    return output


def _run_samples(bundle: Bundle, settings: Settings) -> SampleOutput:
    """Run the model on the samples, without a check that it has one number per label."""
    batch = samples(bundle, settings)
    if bundle.kind == "flux":
        with closing(open_engine(settings, bundle)) as engine:
            return SampleOutput(engine.predict(batch), engine.info)
    check_fit(bundle)
    try:
        return SampleOutput(
            OnnxruntimeEngine(bundle, model=float32_form(bundle)).predict(batch), None
        )
    except FluxdropError:
        if settings.engine != "onnxruntime":
            # Where onnxruntime does not know an operator either, this error names the node.
            compile_bundle(bundle)
        raise


def _key_lines(entries: dict[str, Any]) -> list[str]:
    return [f"{key} = {toml_value(value)}" for key, value in entries.items() if value is not None]


def spec_text(top: dict[str, Any], table: dict[str, Any]) -> str:
    """Return the text of model.toml, without the keys whose value is None."""
    tables = {key: value for key, value in top.items() if isinstance(value, dict)}
    lines = _key_lines({key: value for key, value in top.items() if key not in tables})
    for name, entries in {"input": table, **tables}.items():
        lines += ["", f"[{name}]"] if entries else []
        lines += _key_lines(entries)
    return "\n".join(lines) + "\n"


def _verify(bundle: Bundle, settings: Settings, output: SampleOutput) -> AddedModel:
    """Check the answers, and run an ONNX model on the chosen engine to compare the outputs."""
    for row in output.raw:
        answer_of(row, bundle)
    if output.engine is not None:
        return AddedModel(bundle, output.engine, None)
    if settings.engine == "auto" and find_julia() is not None:
        # The purpose is to run on Flux, so a fallback to onnxruntime is an error; --engine onnxruntime allows it.
        settings = msgspec.structs.replace(settings, engine="julia")
    with closing(open_engine(settings, bundle)) as engine:
        batch = samples(bundle, settings)
        found = engine.predict(batch)
        compared = compare(bundle, settings, batch, output.raw, found, engine.info)
        return AddedModel(bundle, engine.info, compared.difference, compared.remark)
